"""How large a model is, told by its config.json without loading it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetyheads.costs.flops import Shape

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_INTERMEDIATE = ("intermediate_size", "ffn_dim", "n_inner")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_OF_EXPERT = ("moe_intermediate_size", "expert_intermediate_size")

WITHOUT_GATE = frozenset({"gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "opt", "phi", "starcoder2", "nemotron"})
"""Model types whose MLP has two matrices."""


@dataclass(frozen=True)
class ModelSize:
    """`shape` as a token meets it: of a mixture of experts, those that one token uses. `parameters` are all of them."""

    shape: Shape
    parameters: int


def size_of_shape(shape: Shape, tied: bool, resting: int = 0) -> ModelSize:
    """A model of this shape; `tied` if it has one matrix for embedding and output, `resting` parameters of experts."""
    return ModelSize(shape, shape.weights + resting + (0 if tied else shape.output))


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """A model folder's config.json, with that of its text model on top if it has several; None if there is none."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict):
        return None
    inner = values.get("text_config")
    return values | inner if isinstance(inner, dict) else values


def local_grid(folder: Path) -> tuple[int, int] | None:
    """Layers and query heads per layer by the config.json of a model's folder; None if it does not say."""
    values = read_config(folder) or {}
    layers, heads = _first(values, _LAYERS), _first(values, _HEADS)
    return None if layers is None or heads is None else (layers, heads)


def local_size(folder: Path) -> ModelSize | None:
    """The size of the model in a folder by its config.json; None if it does not say."""
    values = read_config(folder) or {}
    layers, heads, hidden = (_first(values, names) for names in (_LAYERS, _HEADS, _HIDDEN))
    vocabulary = _first(values, ("vocab_size",))
    if layers is None or heads is None or hidden is None or vocabulary is None:
        return None
    matrices = 2 if values.get("model_type") in WITHOUT_GATE else 3
    width = _first(values, _INTERMEDIATE) or 4 * hidden
    active, resting = _experts(values, layers, width)
    shape = Shape(
        layers=layers,
        heads=heads,
        hidden=hidden,
        intermediate=active,
        vocabulary=vocabulary,
        kv_heads=_first(values, _KV_HEADS) or heads,
        head_dim=_first(values, ("head_dim",)),
        matrices=matrices,
    )
    return size_of_shape(shape, values.get("tie_word_embeddings", True) is True, matrices * hidden * resting)


def _experts(values: Mapping[str, Any], layers: int, width: int) -> tuple[int, int]:
    """Width of the MLP that one token uses, the mean over layers; widths of the experts that rest, of all layers."""
    experts = _first(values, _EXPERTS) or 0
    if experts < 2:
        return width, 0
    used = _first(values, ("num_experts_per_tok", "experts_per_token")) or 1
    shared = _first(values, ("n_shared_experts",)) or 0
    dense = min(layers, _first(values, ("first_k_dense_replace",)) or 0)
    each = _first(values, _OF_EXPERT) or width
    active = (dense * width + (layers - dense) * (used + shared) * each) // layers
    return active, (layers - dense) * (experts - used) * each


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The value of the first name that has a whole number above 0."""
    return next((values[name] for name in names if type(values.get(name)) is int and values[name] > 0), None)
