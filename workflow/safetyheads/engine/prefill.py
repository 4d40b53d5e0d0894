"""The passes of generation: first over the prompts of a batch, then over one token at a time.

Many rows of a batch share a prompt: other heads are ablated in each, or other random numbers drawn. A prompt is run
once with nothing ablated. Its head sets resume from that pass, each at its first ablated layer, and rows that share
both prompt and head set share the result.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.decoder import cache_argument, check_numbers, input_device
from safetyheads.engine.kv_cache import Filling
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.heads import Ablation, HeadSet

Prompt = tuple[int, ...]
Units = Mapping[tuple[Prompt, HeadSet], Sequence[int]]
"""A unit is what needs one pass: a prompt and the heads ablated in it. It is mapped to its rows, one per sample."""


def prefill(
    passes: PartialForward,
    prompts: Sequence[Prompt],
    head_sets: Sequence[HeadSet],
    ablation: Ablation | None,
    new_tokens: int,
    starts: Sequence[int],
) -> tuple[Tensor, DynamicCache]:
    """Run B prompts of token ids, each with its own heads ablated.

    Returns the logits of their last positions (B, vocabulary), and a cache of their keys and values, which is padded on
    the left to the longest prompt and has room for `new_tokens` more. Layers below `starts[r]` need nothing of row r,
    and may hold anything there.

    Resuming from a plain pass costs that pass. So a prompt is shared only if its head sets skip at least as many layers
    as that pass computes; otherwise each of them is run on its own.
    """
    layers = len(passes.layers)
    units: dict[tuple[Prompt, HeadSet], list[int]] = {}
    for row, unit in enumerate(zip(prompts, head_sets)):
        units.setdefault(unit, []).append(row)
    left_out = dict.fromkeys(prompts, 0)
    for prompt, heads in units:
        left_out[prompt] += _first(heads, layers)
    ablated = {prompt for prompt, heads in units if heads}
    shared = {prompt for prompt in ablated if left_out[prompt] >= layers}
    filling = Filling(passes.model, len(prompts), max(map(len, prompts)), new_tokens)
    for length in sorted(set(map(len, prompts))):
        of_length = {unit: rows for unit, rows in units.items() if len(unit[0]) == length}
        together = {unit: of_length[unit] for unit in of_length if unit[0] in shared}
        _each_alone(passes, filling, ablation, {unit: of_length[unit] for unit in of_length if unit not in together})
        _all_resumed(passes, filling, ablation, together, starts)
    return filling.logits, filling.cache()


def _first(heads: HeadSet, layers: int) -> int:
    """The first layer that has an ablated head; the number of layers if none has."""
    return min((head.layer for head in heads), default=layers)


def _each_alone(passes: PartialForward, filling: Filling, ablation: Ablation | None, units: Units) -> None:
    """Run units of one length as whole passes, U rows together."""
    if units:
        ids = torch.tensor([prompt for prompt, _ in units], device=input_device(passes.model))  # (U, T)
        places = filling.places(list(units.values()))
        top = passes.whole(ids, ablation, [heads for _, heads in units], filling.into(places))
        filling.take(places, top.logits)


def _all_resumed(
    passes: PartialForward, filling: Filling, ablation: Ablation | None, units: Units, starts: Sequence[int]
) -> None:
    """Run the P prompts of units of one length with nothing ablated, and resume each unit at its first layer.

    Up to that layer, keys and values of the plain pass are the unit's, too: they go to its rows. Layers below
    `starts[row]` will not be read, and are left out.
    """
    if not units:
        return
    layers = len(passes.layers)
    prompts = list(dict.fromkeys(prompt for prompt, _ in units))
    resumed_at = sorted({_first(heads, layers) for _, heads in units if heads})
    members: list[list[int]] = [[] for _ in prompts]
    plain: dict[int, tuple[int, int]] = {}  # by row: the first and the last layer that it gets from the plain pass
    for (prompt, heads), rows in units.items():
        members[prompts.index(prompt)].extend(rows)
        plain |= {row: (starts[row], _first(heads, layers)) for row in rows}
    places = filling.places(members, plain)
    ids = torch.tensor(prompts, device=input_device(passes.model))  # (P, T)
    kept, top = passes.keep(ids, ablation, (), filling.into(places), layers=resumed_at)
    filling.take(places, top.logits)
    for layer in resumed_at:
        at_layer = [unit for unit in units if _first(unit[1], layers) == layer]
        places = filling.places([units[unit] for unit in at_layer])
        chosen, sets = [prompts.index(prompt) for prompt, _ in at_layer], [heads for _, heads in at_layer]
        filling.take(places, passes.resume(kept, chosen, layer, ablation, sets, filling.into(places)).logits)


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
