"""Models whose heads cannot be ablated are named, with what is supported; no score is ever made of them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from definition import transformers_alone
from members import TEXTS, difference, logits
from registry import REFUSED, SIZE

from safetyheads.engine.ablation import install
from safetyheads.engine.decoder import decoder
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe
from safetyheads.models.load import load

NAMES = {"d_model": 32, "n_layers": 3, "n_heads": 4, "num_layers": 3, "num_heads": 4, "d_ff": 48, "d_kv": 8}
SIDES = {
    f"{side}_{key}": value
    for side in ("encoder", "decoder")
    for key, value in {"layers": 3, "attention_heads": 4, "ffn_dim": 48}.items()
}
SMALL = {**SIZE, **NAMES, **SIDES, "state_size": 4, "lru_width": 32}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4} | {
    "image_size": 28,
    "patch_size": 14,
}
TEXT = {**SIZE, "head_dim": 8, "sliding_window": 4}


def random_model(name: str, **changes: Any) -> transformers.PreTrainedModel:
    """A small random model of a class, with those keys of `SMALL` that its configuration has."""
    class_: Any = getattr(transformers, name)
    known = class_.config_class().to_dict().keys() | class_.config_class.attribute_map.keys()
    size = {key: value for key, value in SMALL.items() if key in known}
    torch.manual_seed(0)
    return class_(class_.config_class(**{**size, **changes})).eval()


def saved(model: transformers.PreTrainedModel, folder: Path) -> Path:
    """The model's folder, with a tokenizer."""
    tokenizer = transformers.GPT2Tokenizer().train_new_from_iterator(TEXTS, SIZE["vocab_size"], show_progress=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", [name for names in REFUSED for name in REFUSED[names].classes])
def test_a_folder_that_cannot_be_measured_is_named(name: str, tmp_path: Path) -> None:
    folder = saved(random_model(name), tmp_path)
    (reason,) = (refused.said for refused in REFUSED.values() if name in refused.classes)
    with pytest.raises(
        SafetyHeadsError, match=rf"holds a {name}, which .*{reason}.* Supported are .* Llama"
    ) as described:
        describe(folder, model="m", source="path")
    with pytest.raises(SafetyHeadsError) as loaded:
        load(folder, device="cpu")
    assert str(loaded.value) == str(described.value)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("DiffLlamaForCausalLM", {}, "layer 0 .* comes to the attention interface 2 times"),
        ("BertLMHeadModel", {"is_decoder": True}, "no single norm behind its last layer"),
        ("HrmTextForCausalLM", {}, "0 stacks"),
    ],
)
def test_what_only_a_pass_shows_is_named_before_anything_is_computed(
    name: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SafetyHeadsError, match=rf"^{name}.* {said}.*"):
        decoder(install(random_model(name, **changes)))


@pytest.mark.parametrize("name", ["T5ForConditionalGeneration", "BloomForCausalLM", "JambaForCausalLM"])
def test_such_a_model_cannot_be_installed(name: str) -> None:
    with pytest.raises(SafetyHeadsError, match=rf"^{name} (has|does not use) .* Supported are .* Llama"):
        install(random_model(name))


def gemma3() -> transformers.PreTrainedModel:
    config = transformers.Gemma3Config(text_config={**TEXT, "query_pre_attn_scalar": 8}, vision_config=VISION)
    return transformers.Gemma3ForConditionalGeneration(config)


def llama4() -> transformers.PreTrainedModel:
    text = {**TEXT, "intermediate_size_mlp": 48, "num_local_experts": 4}
    vision = {**VISION, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32}
    return transformers.Llama4ForConditionalGeneration(
        transformers.Llama4Config(text_config=text, vision_config=vision)
    )


@pytest.mark.parametrize("build", [gemma3, llama4])
def test_the_text_decoder_of_a_model_that_sees_is_measured_where_transformers_loads_it(
    build: Callable[[], transformers.PreTrainedModel], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build().eval()
    folder = saved(model, tmp_path)
    described = describe(folder, model="m", source="path")
    assert (described["layers"], described["heads"], described["kv_heads"]) == (3, 4, 2)
    loaded = load(folder, device="cpu")
    ids = torch.tensor([[5, 9, 17, 33, 3]])
    with transformers_alone():
        expected = logits(getattr(model, "language_model", model), ids)
    assert difference(logits(loaded, ids), expected) < 1e-6
    assert len(decoder(loaded).layers) == 3


def test_a_model_that_sees_and_is_not_loaded_so_is_named(tmp_path: Path) -> None:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**SIZE), vision_config=transformers.CLIPVisionConfig(**VISION)
    )
    folder = saved(transformers.LlavaForConditionalGeneration(config), tmp_path)
    with pytest.raises(SafetyHeadsError, match=r"holds a LlavaForConditionalGeneration.* Its text decoder .*`path:`"):
        describe(folder, model="m", source="path")
    shutil.rmtree(folder)
    text = saved(transformers.LlamaForCausalLM(config.text_config), folder)
    assert describe(text, model="m", source="path")["class"] == "LlamaForCausalLM"
