"""Ablation of attention heads through the attention interface of transformers.

`install` puts one function between a model and its attention implementation. It sees query, key and value states after
projection, bias, q/k norm and rotary embedding, (B, N, T, d), and the head outputs, (B, T, N, d), before the output
projection. Every family that uses the interface comes through here, so one piece of code serves them all.

Within `ablate`, each row of the batch has its own set of heads. Outside it, and in every layer without an ablated head,
the model computes what it always did.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safetyheads.engine.supported_families import check_family
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, HeadSet, Kind

Attend = Callable[..., tuple[Tensor, Tensor | None]]
"""An attention function of transformers: (module, query, key, value, mask, ...) -> head outputs, weights."""

Attention = Callable[..., tuple[Tensor, Tensor | None]]
"""What takes the place of an attention function: (that function, module, query, key, value, mask, ...) -> the same."""

States = tuple[Tensor, Tensor, Tensor]
"""Query (B, N, T, d), key and value states (B, N_kv, S, d)."""


@dataclass
class Rows:
    """The head sets of the rows of the batch that is being computed, as a mask (B, N) for each layer that has any.

    `computed`, if given, says of each layer how many rows it computes: the first ones (see `shared_rows`).
    """

    ablation: Ablation
    head_sets: list[HeadSet]
    model: PreTrainedModel
    masks: dict[int | None, Tensor] = field(default_factory=dict)
    computed: Sequence[int] | None = None
    every_row: bool = False  # there is one head set, (1, N) in the masks, for each row, however many there are

    def __post_init__(self) -> None:
        layers: set[int | None] = {head.layer for heads in self.head_sets for head in heads}
        width = self.model.config.get_text_config(decoder=True).num_attention_heads
        self.masks = {layer: torch.zeros(len(self.head_sets), width, dtype=torch.bool) for layer in layers}
        for row, heads in enumerate(self.head_sets):
            for layer, head in heads:
                self.masks[layer][row, head] = True

    def of_layer(self, layer: int | None, device: torch.device) -> Tensor | None:
        """The mask (rows that the layer computes, N) on the layer's device, or None if none of its heads is ablated."""
        if layer is None or layer not in self.masks:
            return None
        self.masks[layer] = self.masks[layer].to(device)
        return self.masks[layer] if self.computed is None else self.masks[layer][: self.computed[layer]]

    def select(self, rows: Tensor, computed: Sequence[int] | None = None) -> None:
        """Keep these rows (B,), by index, in this order: some end while a batch runs."""
        self.masks = {layer: mask[rows.to(mask.device)] for layer, mask in self.masks.items()}
        self.computed = computed


_INSTALLED = "is_installed_for_ablation"
"""The attribute of the modules of a model that `install` has seen."""

_active: ContextVar[Rows | None] = ContextVar("safetyheads_rows", default=None)
_exchange: ContextVar[Callable[..., States] | None] = ContextVar("safetyheads_exchange", default=None)
_attention: ContextVar[Attention | None] = ContextVar("safetyheads_attention", default=None)


@contextmanager
def ablate(
    model: PreTrainedModel, ablation: Ablation | None, head_sets: Sequence[HeadSet], *, every_row: bool = False
) -> Iterator[Rows | None]:
    """Ablate `head_sets[b]` in row b of every forward pass of `model` within the block.

    With `every_row` there is one head set, and it is ablated in all rows, however many a pass has. With `ablation`
    None, or with empty sets alone, the model stays as it is. Yields the rows, so that some can be dropped with
    `select`. All is over when the block ends, also by an error, and weights are never touched. Raises SafetyHeadsError
    for a nested block; the forward pass raises it if the batch has not one row for each head set.
    """
    check_no_block()
    if ablation is None and any(head_sets):
        raise SafetyHeadsError("Heads to ablate were given, but no ablation.")
    if ablation is not None and not _installed(model):
        raise SafetyHeadsError(f"{type(model).__name__} was not installed for ablation: call `install` first.")
    rows = Rows(ablation, list(head_sets), model, every_row=every_row) if ablation is not None else None
    token = _active.set(rows)
    try:
        yield rows
    finally:
        _active.reset(token)


@contextmanager
def exchange(states: Callable[..., States]) -> Iterator[None]:
    """Within the block, let attention work with what `states(module, query, key, value)` returns.

    Ablation comes after it. A function that returns what it gets only watches; one that raises ends the pass there.
    """
    token = _exchange.set(states)
    try:
        yield
    finally:
        _exchange.reset(token)


@contextmanager
def attend_by(model: PreTrainedModel, attention: Attention) -> Iterator[None]:
    """Within the block, every layer of `model` attends by `attention`, which is given the function that it would use.

    `attention` returns head outputs (B, T, N, d) and weights as that does. Raises SafetyHeadsError within a block of
    `ablate` or of this function, and if the model is not installed for ablation.
    """
    check_no_block()
    if not _installed(model):
        raise SafetyHeadsError(f"{type(model).__name__} was not installed for ablation: call `install` first.")
    mark = model.__dict__[_INSTALLED]

    def of_model(attend: Attend, module: nn.Module, *states: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if module.__dict__[_INSTALLED] is not mark:  # another model
            return attend(module, *states, **kwargs)
        return attention(attend, module, *states, **kwargs)

    token = _attention.set(of_model)
    try:
        yield
    finally:
        _attention.reset(token)


def check_no_block() -> None:
    """Raise SafetyHeadsError within a block of `ablate` or `attend_by`."""
    if _active.get() is not None or _attention.get() is not None:
        raise SafetyHeadsError("Ablation blocks cannot be nested: end the first one before the next begins.")


def install(model: PreTrainedModel) -> PreTrainedModel:
    """Route the model's attention through this module, around the implementation that the model was loaded with.

    The implementation keeps its name, because transformers asks for it in several places (masks, for example). Other
    models that use it compute what they always did, also within `ablate`. Raises SafetyHeadsError for a family that
    does not use the attention interface of transformers.
    """
    check_family(type(model), model.config, type(model).__name__)
    base = model.config.get_text_config(decoder=True)._attn_implementation
    attend = ALL_ATTENTION_FUNCTIONS.get(base)  # None for eager: each family has its own
    if not isinstance(attend, _Around):
        AttentionInterface.register(base, _Around(attend))
    mark = object()  # a copy of the model has a copy of it, the same in all its modules
    for module in model.modules():
        module.__dict__[_INSTALLED] = mark
    return model


class _Around:
    """An attention function around another one: `base`, or the family's own eager one if that is None."""

    def __init__(self, base: Attend | None) -> None:
        self.base = base

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        attend = self.base or _eager(module)
        if not _installed(module):  # another model that asks for the same implementation
            return attend(module, query, key, value, attention_mask, **kwargs)
        if (other := _exchange.get()) is not None:
            query, key, value = other(module, query, key, value)
        if (attention := _attention.get()) is not None:
            return attention(attend, module, query, key, value, attention_mask, **kwargs)
        rows = _active.get()
        if rows is not None and module.__dict__[_INSTALLED] is not rows.model.__dict__[_INSTALLED]:
            rows = None  # the block is about another model
        layer = getattr(module, "layer_idx", None)
        mask = None if rows is None else rows.of_layer(layer, query.device)
        if rows is None or mask is None:
            return attend(module, query, key, value, attention_mask, **kwargs)
        if len(mask) != len(query) and not rows.every_row:
            raise SafetyHeadsError(f"{len(mask)} head sets were given for a batch of {len(query)} rows.")
        return attend_ablated(attend, rows.ablation, mask, module, query, key, value, attention_mask, **kwargs)


def _installed(module: nn.Module) -> bool:
    return _INSTALLED in module.__dict__


def _eager(module: nn.Module) -> Attend:
    """The eager attention that the family's module has beside the class of `module`, or beside one it inherits from."""
    for class_ in type(module).__mro__:
        eager: Attend | None = getattr(sys.modules[class_.__module__], "eager_attention_forward", None)
        if eager is not None:
            return eager
    raise SafetyHeadsError(f"{type(module).__name__} has no eager attention of its own.")


def attend_ablated(
    attend: Attend,
    ablation: Ablation,
    mask: Tensor,  # (B, N): which heads of which rows
    module: Any,
    query: Tensor,  # (B, N, T, d)
    key: Tensor,  # (B, N_kv, S, d)
    value: Tensor,  # (B, N_kv, S, d)
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend with the heads of the mask ablated: before it in the states, or after it in the outputs (B, T, N, d)."""
    of_states, of_output = mask[:, :, None, None], mask[:, None, :, None]
    match ablation.kind:
        case Kind.UNDIFFERENTIATED:
            query = torch.where(of_states, query * ablation.epsilon, query)
        case Kind.MEAN_QUERY:
            query = torch.where(of_states, query.mean(dim=1, keepdim=True), query)
        case Kind.MEAN_KEY:
            groups = query.shape[1] // key.shape[1]  # query heads that share a key: not any more, if one is ablated
            key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
            key = torch.where(of_states, key.mean(dim=1, keepdim=True), key)
            module = _Ungrouped(module)
    output, weights = attend(module, query, key, value, attention_mask, **kwargs)  # (B, T, N, d)
    match ablation.kind:
        case Kind.SCALING:
            output = torch.where(of_output, output * ablation.epsilon, output)
        case Kind.MEAN_OUTPUT:
            output = torch.where(of_output, output.mean(dim=2, keepdim=True), output)
    return output, weights


class _Ungrouped:
    """An attention module whose keys have already been expanded to one per query head."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
