"""Ablation by its definition: each family's own eager attention written out, row by row and head by head, in float64.

It takes the place of the function `eager_attention_forward` in the family's module, and nothing of the library is used.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

Heads = Sequence[tuple[int, int]]
"""(layer, head) pairs."""

TRANSFORMERS = dict(AttentionInterface._global_mapping)
"""What transformers itself computes, before anything is installed."""


@contextmanager
def transformers_alone() -> Iterator[None]:
    """Let models compute what they do where the library was never imported."""
    installed = dict(AttentionInterface._global_mapping)
    AttentionInterface._global_mapping.clear()
    AttentionInterface._global_mapping.update(TRANSFORMERS)
    try:
        yield
    finally:
        AttentionInterface._global_mapping.update(installed)


@contextmanager
def defined(model: PreTrainedModel, kind: str, epsilon: float, rows: Sequence[Heads]) -> Iterator[list[int]]:
    """Let `model`, which has eager attention, compute by definition, with `rows[b]` ablated in row b.

    Yields the layers that have attended, in turn.
    """
    module = sys.modules[type(model).__module__]
    own = module.eager_attention_forward
    layers: list[int] = []

    def attend(
        attention: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        layer = int(attention.layer_idx)
        layers.append(layer)
        sinks = getattr(attention, "sinks", None)
        outputs = []
        for row, heads in enumerate(rows):
            mask = None if attention_mask is None else attention_mask[row if len(attention_mask) > 1 else 0]
            ablated = {head for at, head in heads if at == layer}
            outputs.append(
                of_row(query[row], key[row], value[row], mask, sinks, scaling, softcap, kind, epsilon, ablated)
            )
        return torch.stack(outputs).to(query.dtype), None

    module.eager_attention_forward = attend
    try:
        with transformers_alone():
            yield layers
    finally:
        module.eager_attention_forward = own


def of_row(
    query: Tensor,  # (N, T, d)
    key: Tensor,  # (N_kv, S, d)
    value: Tensor,  # (N_kv, S, d_v)
    mask: Tensor | None,  # (1 or N, T, S), added to the scores
    sinks: Tensor | None,  # (N,)
    scaling: float | None,
    softcap: float | None,
    kind: str,
    epsilon: float,
    ablated: set[int],
) -> Tensor:
    """Head outputs (T, N, d_v) of one sequence."""
    heads, _, width = query.shape
    shared = heads // len(key)  # query heads that share keys and values
    queries = [query[head].double() for head in range(heads)]
    keys = [key[head // shared].double() for head in range(heads)]
    values = [value[head // shared].double() for head in range(heads)]
    mean_query, mean_key = sum(queries) / heads, sum(keys) / heads
    outputs = []
    for head in range(heads):
        q, k = queries[head], keys[head]
        if head in ablated:
            q = {"undifferentiated": epsilon * q, "mean_query": mean_query}.get(kind, q)
            k = mean_key if kind == "mean_key" else k
        scores = (q @ k.T) * (width**-0.5 if scaling is None else scaling)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if mask is not None:
            scores = scores + mask[head if len(mask) > 1 else 0].double()
        weights = scores.exp()
        total = weights.sum(dim=1, keepdim=True)
        if sinks is not None:
            total = total + sinks[head].double().exp()
        outputs.append(weights / total @ values[head])
    mean_output = sum(outputs) / heads
    for head in ablated:
        outputs[head] = {"scaling": epsilon * outputs[head], "mean_output": mean_output}.get(kind, outputs[head])
    return torch.stack(outputs, dim=1)
