"""The prompts of a batch, computed once for all rows that share them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from safetyheads.ablation import Ablation
from safetyheads.cache import Filling
from safetyheads.heads import HeadSet
from safetyheads.partial_forward import PartialForward, Prompts

Unit = tuple[tuple[int, ...], HeadSet]
"""What rows may share: a prompt and the heads ablated in it. Samples are many rows of one unit."""


def prefill(
    passes: PartialForward,
    prompts: Sequence[tuple[int, ...]],
    head_sets: Sequence[HeadSet],
    ablation: Ablation | None,
    new_tokens: int,
) -> tuple[Tensor, DynamicCache]:
    """Run B prompts of token ids, each with its own heads ablated, padded on the left to the longest.

    Returns the logits of their last positions (B, vocabulary) and a cache of their keys and values with room for
    `new_tokens` more. A prompt is run once with nothing ablated, and its head sets resume from there, wherever that
    leaves out more layers than it costs.
    """
    width, layers = max(map(len, prompts)), len(passes.layers)
    device = passes.model.device
    filling = Filling(passes.model, len(prompts), width, new_tokens)
    logits = torch.empty(0)

    units: dict[Unit, list[int]] = {}
    for row, unit in enumerate(zip(prompts, head_sets)):
        units.setdefault(unit, []).append(row)
    first = {heads: min((head.layer for head in heads), default=layers) for heads in head_sets}
    left_out = dict.fromkeys(prompts, 0)
    for prompt, heads in units:
        left_out[prompt] += first[heads]

    def places(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(source, to): row u of a pass becomes each of `rows[u]`."""
        pairs = [(source, row) for source, members in enumerate(rows) for row in members]
        source, to = torch.tensor(pairs, device=device).T
        return source, to

    def collect(of_pass: Tensor, source: Tensor, to: Tensor) -> None:
        nonlocal logits
        if not len(logits):
            logits = of_pass.new_empty(len(prompts), of_pass.shape[1])
        logits[to] = of_pass[source]

    alone = [unit for unit in units if left_out[unit[0]] < layers]
    if alone:
        at = places([units[unit] for unit in alone])
        ids = Prompts.of([prompt for prompt, _ in alone], width, device)
        collect(passes.whole(ids, ablation, [heads for _, heads in alone], filling.of(*at)).logits, *at)

    shared = [prompt for prompt, count in left_out.items() if count >= layers]
    if shared:
        rows_of = {prompt: [row for row, other in enumerate(prompts) if other == prompt] for prompt in shared}
        at = places([rows_of[prompt] for prompt in shared])
        kept = passes.keep(Prompts.of(shared, width, device), ablation, (), filling.of(*at))
        collect(kept.top.logits, *at)
        for layer in sorted({first[heads] for prompt, heads in units if prompt in rows_of} - {layers}):
            resumed = [unit for unit in units if unit[0] in rows_of and first[unit[1]] == layer]
            at = places([units[unit] for unit in resumed])
            chosen, sets = [shared.index(prompt) for prompt, _ in resumed], [heads for _, heads in resumed]
            collect(passes.resume(kept, chosen, layer, ablation, sets, filling.of(*at)).logits, *at)
    return logits, filling.cache()
