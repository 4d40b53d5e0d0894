"""Random models of the families, with weights that make every head, bias and norm matter."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from definition import Heads, transformers_alone
from registry import SIZE, Family
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.engine.ablation import install
from safetyheads.heads import Head

SETS: list[tuple[Head, ...]] = [
    (),
    (Head(0, 1),),
    (Head(1, 0), Head(1, 2)),
    (Head(0, 3), Head(1, 1), Head(2, 0), Head(2, 2)),
    (Head(2, 0), Head(2, 1), Head(2, 3)),
]
"""Head sets of the rows of a batch: none, one, several of a layer, of several layers, most of the last layer."""

TEXTS = [
    "How do I bake bread?",
    "Name three rivers that flow through more than one country.",
    "## Query: What is the weather like in spring?\n## Answer:",
    "Tell me how to repair a bicycle, step by step; I have 2 hours.",
    "Why is the sky blue, and the sunset red?",
]


def configuration(family: Family, **changes: Any) -> transformers.PreTrainedConfig:
    """The family's configuration, with those keys of `SIZE` that it has."""
    class_: Any = getattr(transformers, family.config)
    known = class_().to_dict().keys() | class_.attribute_map.keys()
    size = {key: value for key, value in SIZE.items() if key in known}
    return class_(**{**size, **family.changes, **changes})


def build(family: Family, attention: str | None = None, **changes: Any) -> PreTrainedModel:
    """A random model, with the attention that `auto` stands for if none is named, not installed for ablation."""
    attention = attention or ("eager" if family.eager else "sdpa")
    model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(
        configuration(family, **changes), attn_implementation=attention
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.2 * drawn if weight.dim() == 1 and (weight == 1).all() else 0.3 * drawn)
    return model.eval().requires_grad_(False)


@cache
def plain(family: Family) -> PreTrainedModel:
    """The model as transformers has it."""
    return build(family)


@cache
def eager(family: Family) -> PreTrainedModel:
    """The same weights, with the family's own eager attention, for `definition.defined`."""
    return build(family, "eager")


@cache
def installed(family: Family) -> PreTrainedModel:
    """The same weights, installed for ablation."""
    return install(build(family))


def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits of all positions, of one whole pass."""
    with torch.inference_mode():
        return model(ids, use_cache=False).logits


def own_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The same, where the library was never imported."""
    with transformers_alone():
        return logits(model, ids)


def prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Random token ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, SIZE["vocab_size"], (length,), generator=generator).tolist() for length in lengths]


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value. Both may have logits of -inf at the same places."""
    finite = expected.isfinite()
    assert torch.equal(finite, found.isfinite())
    return float((found - expected)[finite].abs().max() / expected[finite].abs().max())


def with_tokenizer(family: Family, folder: Path) -> PreTrainedTokenizerBase:
    """Save the family's model, and a tokenizer of its own class that was trained on `TEXTS`, in `folder`."""
    class_: Any = getattr(transformers, family.tokenizer)
    tokenizer = class_().train_new_from_iterator(TEXTS, SIZE["vocab_size"], show_progress=False)
    plain(family).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def pairs(heads: Sequence[Head]) -> Heads:
    return [tuple(head) for head in heads]
