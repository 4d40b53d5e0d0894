"""One pass over all prompts that climbs from layer to layer, and the passes of candidates that resume from it.

Of each block of prompts it keeps the input of one layer at a time, and goes on from there. Blocks for which there is no
room are run anew, up to the next layer. With the group ablated, candidates of layer 2 of a model of four layers cost
what is drawn here:

                            layer 0   layer 1   layer 2   layer 3   logits
    the group               ------------------>                               up to layer 2, and later on from there
    the group and L02H00                        ----------------------->
    the group and L02H01                        ----------------------->

What all prompts begin with is run for itself: see `shared_prefix`.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safetyheads.engine.batches import Batch, Block, chunks
from safetyheads.engine.partial_forward import Kept, Shortcut, Top
from safetyheads.engine.prefix_cache import KeysValues, PrefixCache
from safetyheads.engine.shared_prefix import SharedPrefix, joined_states, shared_tokens
from safetyheads.heads import Head, HeadSet

if TYPE_CHECKING:
    from safetyheads.attribution.scoring_passes import Sweep


class ClimbingPass:
    """A pass over the prompts of `sweep` with `group` ablated; each of the `candidates` is added to it in turn.

    The layers that are resumed at must not go down.
    """

    def __init__(self, sweep: "Sweep", group: HeadSet, candidates: Sequence[Head]) -> None:
        self.sweep, self.group, self.candidates = sweep, group, candidates
        self._layer = -1
        self._kept: dict[int, Kept] = {}  # of each block, by its first prompt, as long as there is room
        self._room = sweep.kept_tokens
        self._above: KeysValues = {}  # what the candidates of the layer make of the prefix

    def indices(self, layer: int) -> list[int]:
        """The candidates of a layer, which follow each other."""
        return [index for index, head in enumerate(self.candidates) if head.layer == layer]

    def top(self, block: Block) -> Top:
        """The top of the P prompts of a block, with the group ablated and nothing else."""
        passes, ablation = self.sweep.passes, self.sweep.ablation
        return joined(
            self.sweep.whole.of(
                lambda some: passes.whole(self._rest(some), ablation, [self.group] * len(some), self._before()),
                block.prompts,
            )
        )

    def resume(self, block: Block, batch: Batch) -> Top:
        """The top of P prompts x C candidates, each added to the group: P * C rows, prompt by prompt."""
        passes, ablation, indices = self.sweep.passes, self.sweep.ablation, self.indices(batch.layer)
        if batch.layer != self._layer:
            self._layer = batch.layer
            self._above = self._prefixes([self._with(index) for index in indices])
        kept = self._climbed(block)
        pairs = [(prompt, index) for prompt in range(len(block.prompts)) for index in batch.candidates]

        def resume(some: list[tuple[int, int]]) -> Top:
            prompts, sets = [prompt for prompt, _ in some], [self._with(index) for _, index in some]
            cache = self._before([index - indices[0] for _, index in some])
            return passes.resume(kept, prompts, batch.layer, ablation, sets, cache)

        return joined(self.sweep.resumed.of(resume, pairs))

    def _with(self, index: int) -> HeadSet:
        """The group with one of the candidates."""
        return tuple(sorted((*self.group, self.candidates[index])))

    @cached_property
    def _tokens(self) -> list[int]:
        """What all prompts begin with, if that is to be run for itself."""
        self.sweep.check()
        shared = self.sweep.passes.shortcut >= Shortcut.PREFIX
        return shared_tokens(self.sweep.passes.model, self.sweep.prompts) if shared else []

    @cached_property
    def _prefix(self) -> SharedPrefix | None:
        """The prefix with the group ablated."""
        if not self._tokens:
            return None
        layers = {head.layer for head in self.candidates}
        return SharedPrefix(self.sweep.passes, self._tokens, self.sweep.ablation, self.group, layers=layers)

    def _prefixes(self, head_sets: Sequence[HeadSet]) -> KeysValues:
        """What head sets of the present layer make of the prefix in the layers above."""
        prefix, pieces = self._prefix, list[KeysValues]()
        if prefix is not None:
            for some in chunks(head_sets, max(1, self.sweep.token_budget // len(self._tokens))):
                pieces += self.sweep.resumed.of(lambda sets: prefix.of_sets(self._layer, sets), some)
        return joined_states(pieces)

    def _before(self, of_row: Sequence[int] | None = None) -> PrefixCache | None:
        """The prefix before rows of the group, or before those of the layer's candidates `of_row`, by their places."""
        if self._prefix is None:
            return None
        return self._prefix.cache() if of_row is None else self._prefix.cache(self._above, of_row)

    def _rest(self, prompts: Sequence[int]) -> Tensor:
        """The token ids (P, T) of prompts of one length, by their indices, behind the prefix."""
        return self.sweep.ids(prompts, after=len(self._tokens))

    def _climbed(self, block: Block) -> Kept:
        """The input of the present layer, with the group ablated."""
        passes, ablation, below = self.sweep.passes, self.sweep.ablation, self._kept.get(block.prompts[0])
        if below is None or self._layer not in below.inputs:

            def climb(places: list[int]) -> Kept:
                ids = self._rest([block.prompts[at] for at in places])
                since = below and Kept(ids, {layer: states[places] for layer, states in below.inputs.items()})
                return passes.keep_up_to(ids, ablation, self.group, self._layer, self._before(), since)

            pieces = self.sweep.whole.of(climb, range(len(block.prompts)))
            made = joined_kept(pieces, self._rest(block.prompts))
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
