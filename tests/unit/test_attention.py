"""The implementation of attention: what a model can do, what was asked for, and what the machine has."""

import pytest
import transformers
from transformers.utils import import_utils

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.attention import implementation

LLAMA = transformers.LlamaForCausalLM, transformers.LlamaConfig()
GEMMA2 = transformers.Gemma2ForCausalLM, transformers.Gemma2Config()
UNCAPPED = transformers.Gemma2ForCausalLM, transformers.Gemma2Config(attn_logit_softcapping=None)
GPT_OSS = transformers.GptOssForCausalLM, transformers.GptOssConfig()
GPU = {"device": "cuda", "dtype": "bfloat16"}


@pytest.fixture
def with_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where flash-attn is installed."""
    monkeypatch.setattr(import_utils, "is_flash_attn_2_available", lambda: True)


@pytest.mark.parametrize(("model", "expected"), [(LLAMA, "sdpa"), (GEMMA2, "eager"), (GPT_OSS, "eager")])
@pytest.mark.parametrize("where", [GPU, {"device": "cpu", "dtype": "float32"}])
def test_auto_is_eager_where_sdpa_cannot_do_what_the_family_needs(model, expected, where):
    assert implementation(*model, "auto", **where) == expected


@pytest.mark.parametrize("wanted", ["sdpa", "eager", "flash_attention_2"])
def test_what_is_asked_for_is_taken(wanted, with_flash):
    assert implementation(*LLAMA, wanted, **GPU) == wanted


@pytest.mark.parametrize(("model", "why"), [(GEMMA2, "caps"), (GPT_OSS, "more than sdpa can")])
def test_sdpa_is_refused_where_it_computes_something_else(model, why):
    with pytest.raises(SafetyHeadsError, match=rf"`attention: sdpa`: {model[0].__name__} .*{why}.*auto or eager"):
        implementation(*model, "sdpa", **GPU)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"device": "cpu"}, r"cannot be had: it needs a GPU, and the model is on cpu\."),
        ({"dtype": "float32"}, r"cannot be had: it computes in 16 bits, and the model's dtype is float32\."),
        ({"dtype": "tf32"}, "dtype is tf32"),
    ],
)
def test_flash_attention_needs_a_gpu_and_16_bits(change, why, with_flash):
    with pytest.raises(SafetyHeadsError, match=why):
        implementation(*LLAMA, "flash_attention_2", **(GPU | change))


def test_flash_attention_that_is_not_installed_is_never_fetched(monkeypatch):
    monkeypatch.setattr(import_utils, "is_flash_attn_2_available", lambda: False)
    monkeypatch.setattr(import_utils, "is_kernels_available", lambda *_: True)
    with pytest.raises(
        SafetyHeadsError, match=r"cannot be had: the package flash-attn is not installed\. .*pip install"
    ):
        implementation(*LLAMA, "flash_attention_2", **GPU)


@pytest.mark.parametrize("class_", [transformers.GptOssForCausalLM, transformers.Llama4ForCausalLM])
def test_a_family_without_flash_attention_is_named(class_, with_flash):
    with pytest.raises(SafetyHeadsError, match=f"{class_.__name__} does not support it"):
        implementation(class_, class_.config_class(), "flash_attention_2", **GPU)
