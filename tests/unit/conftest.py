"""Small models, built in memory, and the golden one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import settings
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.heads import Ablation, HeadSet
from safetyheads.models.load import load
from safetyheads.models.tokenizer import load_tokenizer

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)
settings.register_profile("short", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("long", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

SIZE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LEARNED = {key: value for key, value in SIZE.items() if key not in ("num_key_value_heads", "intermediate_size")}
GEMMA2 = {"head_dim": 16, "query_pre_attn_scalar": 16, "tie_word_embeddings": False}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", SIZE),
    "llama_gqa": ("Llama", SIZE | {"num_key_value_heads": 2}),
    "qwen2": ("Qwen2", SIZE | {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "mistral": ("Mistral", SIZE | {"num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": ("Gemma2", SIZE | {"sliding_window": 4, "attn_logit_softcapping": 2.0, **GEMMA2}),
    "gpt_neox": ("GPTNeoX", SIZE),
    "phi": ("Phi", SIZE),
    "gpt2": ("GPT2", LEARNED),
    "opt": ("OPT", LEARNED | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
}


def build(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of a family, with the size of `SIZE` but for `changes`, not yet installed for ablation.

    Its weights, biases and norms are large enough for every head to matter.
    """
    name, size = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**size, **changes})
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager" if family == "gemma2" else "sdpa"
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.2 * drawn if weight.dim() == 1 and (weight == 1).all() else 0.3 * drawn)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def mini() -> Callable[..., PreTrainedModel]:
    """The builder of random models: `mini("llama", seed=1, num_hidden_layers=1)`."""
    return build


@pytest.fixture(scope="session")
def whole() -> Callable[..., Top]:
    """The top of one plain forward pass, without any shortcut: `whole(model, token_ids, ablation, heads)`."""

    def run(model: PreTrainedModel, ids: list[int], ablation: Ablation | None = None, heads: HeadSet = ()) -> Top:
        passes = PartialForward(model)
        passes.shortcut = Shortcut.NONE
        return passes.whole(torch.tensor([ids]), ablation, [heads])

    return run


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the golden numbers."""
    return Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def tiny_a(golden: Path) -> PreTrainedModel:
    """The golden model, loaded as the pipeline loads it."""
    return load(golden / "tiny_a", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tokenizer(golden: Path) -> PreTrainedTokenizerBase:
    """The golden model's tokenizer, which adds `<s>`."""
    return load_tokenizer(golden / "tiny_a", "fast")


@pytest.fixture
def sequences() -> Callable[..., list[list[int]]]:
    """Random token ids, none of them special: `sequences([5, 7, 5], seed=1, vocabulary=97)`."""

    def draw(lengths: list[int], seed: int = 0, vocabulary: int = 97) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]

    return draw
