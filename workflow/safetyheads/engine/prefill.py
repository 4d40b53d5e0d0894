"""The passes of generation: first over the prompts of a batch, then over one token at a time.

Many rows of a batch share a prompt: other heads are ablated in each, or other random numbers drawn. A prompt is run
once with nothing ablated. Its head sets resume from that pass, each at its first ablated layer, and rows that share
both prompt and head set share the result.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.decoder import cache_argument, check_numbers, input_device
from safetyheads.engine.divergence import divergence
from safetyheads.engine.kv_cache import Filling
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.heads import Ablation, HeadSet

Prompt = tuple[int, ...]
Unit = tuple[Prompt, HeadSet]
Units = Mapping[Unit, Sequence[int]]
"""A unit is what needs one pass: a prompt and the heads ablated in it. It is mapped to its rows, one per sample."""


class Begun(NamedTuple):
    """A batch of B rows whose prompts have been run."""

    logits: Tensor  # (B, vocabulary): of the first new token
    cache: DynamicCache  # padded on the left to the longest prompt, with room for the new tokens
    divergence: Tensor  # (B,): KL(plain || ablated) of the first new token, in nats, float64; NaN for plain rows


def prefill(
    passes: PartialForward,
    prompts: Sequence[Prompt],
    head_sets: Sequence[HeadSet],
    ablation: Ablation | None,
    new_tokens: int,
    starts: Sequence[int],
) -> Begun:
    """Run B prompts of token ids, each with its own heads ablated, and make room for `new_tokens` more.

    In the cache, layers below `starts[r]` need nothing of row r, and may hold anything there.
    """
    units: dict[Unit, list[int]] = {}
    for row, unit in enumerate(zip(prompts, head_sets)):
        units.setdefault(unit, []).append(row)
    ablated = {prompt for prompt, heads in units if heads}
    filling = Filling(passes.model, len(prompts), max(map(len, prompts)), new_tokens)
    for length in sorted(set(map(len, prompts))):
        of_length = {unit: rows for unit, rows in units.items() if len(unit[0]) == length}
        _plainly(passes, filling, {unit: rows for unit, rows in of_length.items() if unit[0] not in ablated})
        resumed = {unit: rows for unit, rows in of_length.items() if unit[0] in ablated}
        _all_resumed(passes, filling, ablation, resumed, starts)
    return Begun(filling.logits, filling.cache(), filling.divergence)


def _plainly(passes: PartialForward, filling: Filling, units: Units) -> None:
    """Run units of one length in which nothing is ablated."""
    if units:
        ids = torch.tensor([prompt for prompt, _ in units], device=input_device(passes.model))  # (U, T)
        places = filling.places(list(units.values()))
        filling.take(places, passes.whole(ids, None, [()] * len(ids), filling.into(places)).logits)


def _all_resumed(
    passes: PartialForward, filling: Filling, ablation: Ablation | None, units: Units, starts: Sequence[int]
) -> None:
    """Run the P prompts of units of one length with nothing ablated, and resume each unit at its first layer.

    Up to that layer, keys and values of the plain pass are the unit's, too: they go to its rows. Layers below
    `starts[row]` will not be read, and are left out.

    A plain unit resumes with the first of its prompt's others, although nothing is ablated in it. In 16 bits the number
    of rows of a pass changes its rounding. If the plain row came from a pass of another size, then all others might
    differ from it together, as if every head mattered.
    """
    if not units:
        return
    prompts = list(dict.fromkeys(prompt for prompt, _ in units))
    first = _first_layers(units)
    resumed_at = sorted(set(first.values()))
    members: list[list[int]] = [[] for _ in prompts]
    plain: dict[int, tuple[int, int]] = {}  # by row: the first and the last layer that it gets from the plain pass
    for unit, rows in units.items():
        members[prompts.index(unit[0])].extend(rows)
        plain |= {row: (starts[row], first[unit]) for row in rows}
    places = filling.places(members, plain)
    ids = torch.tensor(prompts, device=input_device(passes.model))  # (P, T)
    kept, top = passes.keep(ids, ablation, (), filling.into(places), layers=resumed_at)
    reference = dict(zip(prompts, top.logits))  # of each prompt: those of its plain unit, once there are any
    for layer in resumed_at:
        at_layer = [unit for unit in units if first[unit] == layer]
        places = filling.places([units[unit] for unit in at_layer])
        chosen, sets = [prompts.index(prompt) for prompt, _ in at_layer], [heads for _, heads in at_layer]
        logits = passes.resume(kept, chosen, layer, ablation, sets, filling.into(places)).logits  # (U, vocabulary)
        reference |= {prompt: own for (prompt, heads), own in zip(at_layer, logits) if not heads}
        moved = [
            divergence(reference[prompt], own) if heads else own.new_tensor(torch.nan, dtype=torch.float64)
            for (prompt, heads), own in zip(at_layer, logits)
        ]
        filling.take(places, logits, torch.stack(moved))


def _first_layers(units: Units) -> dict[Unit, int]:
    """The layer that each unit resumes at: that of its first head; for a plain unit the lowest one of its prompt."""
    first = {unit: min(head.layer for head in unit[1]) for unit in units if unit[1]}
    lowest: dict[Prompt, int] = {}
    for (prompt, _), layer in first.items():
        lowest[prompt] = min(layer, lowest.get(prompt, layer))
    return {unit: first.get(unit, lowest[unit[0]]) for unit in units}


def next_logits(model: PreTrainedModel, chosen: Tensor, visible: Tensor, cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """Feed the token that was chosen (B,) to each row. Returns the logits (B, vocabulary) that follow.

    `visible` (B, T) is 1 at tokens and 0 at padding, for all positions so far; it is returned with the new one.
    """
    visible = torch.cat([visible, visible.new_ones(len(visible), 1)], dim=1)  # (B, T + 1)
    logits: Tensor = model(
        chosen[:, None],
        attention_mask=visible,
        position_ids=visible.sum(dim=1, keepdim=True) - 1,
        use_cache=True,
        logits_to_keep=1,
        **{cache_argument(model): cache},
    ).logits[:, -1]
    check_numbers(model, logits)
    return logits, visible
