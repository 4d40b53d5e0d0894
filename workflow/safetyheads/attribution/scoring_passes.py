"""Every candidate head over every prompt: what Ships and Sahara have in common."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.batches import Batch, Block, blocks, equal
from safetyheads.engine.decoder import input_device
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.engine.partial_forward import Kept, PartialForward, Top
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.heads import Ablation, Head, HeadSet

Measure = Callable[[Top, Top], Tensor]
"""What is kept of a batch: a tensor (P, C, ...) of the tops of P prompts and of these prompts x C candidates."""


class Sweep:
    """Passes over a list of prompts (token ids), in batches that follow from their lengths and the token budget."""

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        ablation: Ablation | None,
        token_budget: int,
        parts: Parts,
    ) -> None:
        self.passes, self.prompts, self.ablation = PartialForward(model), prompts, ablation
        self.token_budget, self.parts = token_budget, parts
        self.whole, self.resumed = Pieces(parts), Pieces(parts)  # rows of prompts, and of prompts x candidates

    def blocks(self, candidates: Sequence[Head]) -> list[Block]:
        """The batches that cover these candidates."""
        return blocks(list(map(len, self.prompts)), candidates, self.token_budget)

    def plain(self, measure: Callable[[Top], Tensor]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Ablate nothing; yield prompts and what is measured of them. Each batch is kept as a part."""
        for number, prompts in enumerate(equal(list(map(len, self.prompts)), self.token_budget)):
            part = self.parts.load(f"plain-{number:06d}")
            if part is None:
                self._check()
                tops = self.whole.of(lambda some: self.passes.whole(self._ids(some), None, [()] * len(some)), prompts)
                part = measure(_joined(tops)).cpu().numpy()
                self.parts.save(f"plain-{number:06d}", part)
            yield prompts, part

    def run(
        self, name: str, group: HeadSet, candidates: Sequence[Head], measure: Measure
    ) -> Iterator[tuple[Block, Batch, np.ndarray]]:
        """Ablate the group with each candidate added to it; yield, batch by batch, what is measured.

        Each batch is kept as a part called `name` and its own name, and not computed again.
        """
        covering = self.blocks(candidates)
        with tqdm(desc=name, total=sum(len(block.batches) for block in covering), unit="batch") as bar:
            for block in covering:
                kept: Kept | None = None
                for batch in block.batches:
                    part = self.parts.load(f"{name}-{batch.name}")
                    if part is None:
                        kept = self._keep(block, group) if kept is None else kept
                        sets = [tuple(sorted((*group, candidates[index]))) for index in batch.candidates]
                        part = measure(kept.top, self._resume(kept, batch.layer, sets)).cpu().numpy()
                        self.parts.save(f"{name}-{batch.name}", part)
                    bar.update()
                    yield block, batch, part

    def _keep(self, block: Block, group: HeadSet) -> Kept:
        self._check()
        layers = {batch.layer for batch in block.batches}
        kept = self.whole.of(
            lambda some: self.passes.keep(self._ids(some), self.ablation, group, layers=layers), block.prompts
        )
        if len(kept) == 1:
            return kept[0]
        inputs = {layer: torch.cat([piece.inputs.pop(layer) for piece in kept]) for layer in list(kept[0].inputs)}
        return Kept(self._ids(block.prompts), inputs, _joined([piece.top for piece in kept]))

    def _check(self) -> None:
        check_shortcuts(self.passes, max(self.prompts, key=len))

    def _ids(self, prompts: Sequence[int]) -> Tensor:
        return torch.tensor([list(self.prompts[index]) for index in prompts], device=input_device(self.passes.model))

    def _resume(self, kept: Kept, layer: int, sets: Sequence[HeadSet]) -> Top:
        """The top of all prompts x head sets, prompt by prompt."""
        pairs = [(prompt, heads) for prompt in range(len(kept.ids)) for heads in sets]

        def resume(some: list[tuple[int, HeadSet]]) -> Top:
            return self.passes.resume(
                kept, [prompt for prompt, _ in some], layer, self.ablation, [heads for _, heads in some]
            )

        return _joined(self.resumed.of(resume, pairs))


def _joined(tops: Sequence[Top]) -> Top:
    return Top(*(torch.cat(states) for states in zip(*tops))) if len(tops) > 1 else tops[0]
