"""One pass over all prompts that climbs from layer to layer, and the passes of candidates that resume from it.

Of each block of prompts it keeps the input of one layer at a time, and goes on from there. Blocks for which there is no
room are run anew, up to the next layer. With the group ablated, candidates of layer 2 of a model of four layers cost
what is drawn here:

                            layer 0   layer 1   layer 2   layer 3   logits
    the group               ------------------>                               up to layer 2, and later on from there
    the group and L02H00                        ----------------------->
    the group and L02H01                        ----------------------->

What all prompts begin with is run for itself: see `beginning`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safetyheads.attribution.beginning import Beginning
from safetyheads.engine.batches import Batch, Block
from safetyheads.engine.partial_forward import Kept, Top
from safetyheads.heads import Head, HeadSet

if TYPE_CHECKING:
    from safetyheads.attribution.scoring_passes import Sweep


class ClimbingPass:
    """A pass over the prompts of `sweep` with `group` ablated; each of the `candidates` is added to it in turn.

    Batches are to be resumed layer by layer, from the lowest on.
    """

    def __init__(self, sweep: "Sweep", group: HeadSet, candidates: Sequence[Head]) -> None:
        self.sweep, self.group, self.candidates = sweep, group, candidates
        self._beginning = Beginning(sweep, group, layers={head.layer for head in candidates})
        self._kept: dict[int, Kept] = {}  # of each block, by its first prompt, as long as there is room
        self._room = sweep.kept_tokens

    def indices(self, layer: int) -> list[int]:
        """The candidates of a layer, which follow each other."""
        return [index for index, head in enumerate(self.candidates) if head.layer == layer]

    def top(self, block: Block) -> Top:
        """The top of the P prompts of a block, with the group ablated and nothing else."""
        self.sweep.check()
        passes, ablation, beginning = self.sweep.passes, self.sweep.ablation, self._beginning

        def run(some: list[int]) -> Top:
            return passes.whole(beginning.rest(some), ablation, [self.group] * len(some), beginning.cache())

        return joined(self.sweep.whole.of(run, block.prompts))

    def resume(self, block: Block, batch: Batch) -> Top:
        """The top of P prompts x C candidates, each added to the group: P * C rows, prompt by prompt."""
        self.sweep.check()
        passes, ablation, indices = self.sweep.passes, self.sweep.ablation, self.indices(batch.layer)
        self._beginning.resume(batch.layer, [self._with(index) for index in indices])
        kept = self._climbed(block, batch.layer)
        pairs = [(prompt, index) for prompt in range(len(block.prompts)) for index in batch.candidates]

        def resume(some: list[tuple[int, int]]) -> Top:
            prompts, sets = [prompt for prompt, _ in some], [self._with(index) for _, index in some]
            before = self._beginning.cache([index - indices[0] for _, index in some])
            return passes.resume(kept, prompts, batch.layer, ablation, sets, before)

        return joined(self.sweep.resumed.of(resume, pairs))

    def _with(self, index: int) -> HeadSet:
        """The group with one of the candidates."""
        return tuple(sorted((*self.group, self.candidates[index])))

    def _climbed(self, block: Block, layer: int) -> Kept:
        """The input of a layer, with the group ablated."""
        passes, ablation, below = self.sweep.passes, self.sweep.ablation, self._kept.get(block.prompts[0])
        if below is None or layer not in below.inputs:

            def climb(places: list[int]) -> Kept:
                ids = self._beginning.rest([block.prompts[at] for at in places])
                since = below and Kept(ids, {lower: states[places] for lower, states in below.inputs.items()})
                return passes.keep_up_to(ids, ablation, self.group, layer, self._beginning.cache(), since)

            pieces = self.sweep.whole.of(climb, range(len(block.prompts)))
            made = joined_kept(pieces, self._beginning.rest(block.prompts))
            if below is None and made.ids.numel() > self._room:
                return made
            self._room -= made.ids.numel() if below is None else 0
            self._kept[block.prompts[0]] = made
        return self._kept[block.prompts[0]]


def joined(tops: Sequence[Top]) -> Top:
    """The tops of the pieces of a batch as one."""
    return Top(*(torch.cat(states) for states in zip(*tops))) if len(tops) > 1 else tops[0]


def joined_kept(kept: Sequence[Kept], ids: Tensor) -> Kept:
    """The pieces of a pass over a block, of all ids (P, T), as one: layer by layer, so that little is there twice."""
    if len(kept) == 1:
        return kept[0]
    return Kept(ids, {layer: torch.cat([piece.inputs.pop(layer) for piece in kept]) for layer in list(kept[0].inputs)})
