"""A model's attention beside the eager one in the code of its own family, on the same states.

Two passes that attend by different code drift apart from layer to layer, in 16 bits by several per cent, so that a
wrong kernel cannot be told from rounding. So the second pass is given the states of the first one: each layer attends
with the very queries, keys and values that the first pass had there, and only that layer's own code can differ.

                 layer 0                layer 1
    sdpa         q, k, v -> outputs     q, k, v -> outputs      as the model computes
                 |  |  |                |  |  |
    eager        q, k, v -> outputs     q, k, v -> outputs      in float32, with the masks of eager

The states stand for a whole pass: an expert that is chosen otherwise behind the attention changes nothing here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from safetyheads.engine.ablation import Attend
from safetyheads.engine.implementations import EAGER, attending, implementation, wrapped


class Attended(NamedTuple):
    """What one layer attended with, and what came out of it."""

    query: Tensor  # (B, N, T, d)
    key: Tensor  # (B, N_kv, T, d)
    value: Tensor  # (B, N_kv, T, d_v)
    output: Tensor  # (B, T, N, d_v): of the heads, before the output projection


def attended(model: PreTrainedModel, ids: Tensor, states: Sequence[Attended] = ()) -> list[Attended]:
    """Run prompts (B, T) and note what each layer, in turn, attends with and what comes out of its heads.

    With `states`, each layer attends with these instead of its own, in float32.
    """
    with wrapped(implementation(model), partial(_Noting, states=states)) as noted, torch.inference_mode():
        model(ids, use_cache=False, logits_to_keep=1)
    return noted.layers


class _Noting:
    """An attention function around another one that notes what goes in and what comes out."""

    def __init__(self, base: Attend, states: Sequence[Attended]) -> None:
        self.base, self.states = base, states
        self.layers: list[Attended] = []

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        dtype = query.dtype
        if self.states:
            query, key, value = (state.float() for state in self.states[len(self.layers)][:3])
        output, weights = self.base(module, query, key, value, attention_mask, **kwargs)  # (B, T, N, d_v)
        self.layers.append(Attended(query, key, value, output))
        return output.to(dtype), weights


def compared(model: PreTrainedModel, ids: Tensor) -> list[Tensor]:
    """How far each layer's head outputs are from those of eager attention in float32, for prompts (B, T).

    Gives (B, T) for each layer: the length of the difference as a share of the length of eager's outputs. Nothing for a
    model that runs with eager attention itself, or cannot.
    """
    if implementation(model) == EAGER:
        return []
    ours = attended(model, ids)
    with attending(model, EAGER):
        if implementation(model) != EAGER:
            return []
        theirs = attended(model, ids, ours)
    return [apart(own.output.flatten(2), eager.output.flatten(2)) for own, eager in zip(ours, theirs, strict=True)]


def apart(ours: Tensor, theirs: Tensor) -> Tensor:
    """How far vectors (..., d) are from others, (...): the length of the difference as a share of that of `theirs`.

    Where both are zero it is 0, where values are no numbers it is NaN.
    """
    difference, length = (state.norm(dim=-1) for state in (ours.float() - theirs.float(), theirs.float()))
    return torch.where(difference == 0, difference, difference / length).cpu()
