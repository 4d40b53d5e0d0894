"""Every candidate head over every prompt: what Ships and Sahara have in common.

Ships scores prompts one by one. So it goes block by block (`Sweep.by_block`): one plain pass over some prompts, and all
layers resume from it. Sahara compares matrices of all prompts. So it goes layer by layer (`Sweep.by_layer`): the states
of one layer's candidates for all prompts fit into the memory, those of all layers would not.
"""

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
"""From the tops of P plain prompts, and of P * C rows (prompts x candidates): what is kept of a batch, (P, C, ...)."""


class Sweep:
    """Passes over all prompts (token ids) for many candidate heads.

    Batches follow from the prompts' lengths, the candidates and the token budget, and from nothing else.
    """

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

    def plain(self, measure: Callable[[Top], Tensor]) -> Tensor:
        """Ablate nothing; return what is measured (prompts, ...) of each prompt."""
        self._check()
        made, order = [], []
        for batch in equal(list(map(len, self.prompts)), self.token_budget):
            tops = self.whole.of(lambda some: self.passes.whole(self.ids(some), None, [()] * len(some)), batch)
            made.append(measure(_joined(tops)))
            order += batch
        return torch.cat(made).cpu()[torch.tensor(order).argsort()]

    def by_prompt(self, name: str, compute: Callable[[Tensor], Tensor], token_budget: int | None = None) -> np.ndarray:
        """What `compute` makes of token ids (P, T) of one length, (P, ...), for all prompts: (prompts, ...).

        A batch has at most `token_budget` tokens, those of the sweep if none are given. Each is kept as a part called
        `name` and its number, and not computed again.
        """
        lengths = list(map(len, self.prompts))
        return self._by_row(name, lengths, lambda rows: compute(self.ids(rows)), token_budget or self.token_budget)

    def of_sets(self, name: str, sets: Sequence[HeadSet], measure: Callable[[Top], Tensor]) -> np.ndarray:
        """Ablate each head set in whole passes over all prompts; return what is measured, (prompts, sets, ...).

        `measure` takes what is kept, (R, ...), from the top of R rows. Rows of any prompts and sets share a batch. Each
        batch is kept as a part called `name` and its number, and not computed again.
        """
        pairs = [(prompt, heads) for prompt in range(len(self.prompts)) for heads in sets]

        def compute(rows: list[int]) -> Tensor:
            self._check()
            chosen = [pairs[row] for row in rows]
            ids = self.ids([prompt for prompt, _ in chosen])
            return measure(self.passes.whole(ids, self.ablation, [heads for _, heads in chosen]))

        lengths = [len(self.prompts[prompt]) for prompt, _ in pairs]
        made = self._by_row(name, lengths, compute, self.token_budget)
        return made.reshape(len(self.prompts), len(sets), *made.shape[1:])

    def _by_row(
        self, name: str, lengths: Sequence[int], compute: Callable[[list[int]], Tensor], token_budget: int
    ) -> np.ndarray:
        """What `compute` gives for rows of these lengths, by their indices, in their order: (rows, ...)."""
        batches, made = equal(lengths, token_budget), []
        for number, batch in enumerate(tqdm(batches, desc=name, unit="batch")):
            part = self.parts.load(f"{name}-{number:06d}")
            if part is None:
                part = torch.cat(self.whole.of(compute, batch)).cpu().numpy()
                self.parts.save(f"{name}-{number:06d}", part)
            made.append(part)
        return np.concatenate(made)[np.concatenate(batches).argsort()]

    def by_block(
        self, name: str, candidates: Sequence[Head], measure: Measure
    ) -> Iterator[tuple[Block, Batch, np.ndarray]]:
        """Ablate each candidate, one block of prompts after the other; yield, batch by batch, what is measured.

        All layers of a block resume from one plain pass over it. Each batch is kept as a part called `name` and its own
        name, and not computed again.
        """
        covering = self.blocks(candidates)
        with tqdm(desc=name, total=sum(len(block.batches) for block in covering), unit="batch") as bar:
            for block in covering:
                plainly: tuple[Kept, Top] | None = None
                for batch in block.batches:
                    part = self.parts.load(f"{name}-{batch.name}")
                    if part is None:
                        plainly = plainly or self._keep(block)
                        kept, plain = plainly
                        part = measure(plain, self._resume(kept, batch, (), candidates)).cpu().numpy()
                        self.parts.save(f"{name}-{batch.name}", part)
                    bar.update()
                    yield block, batch, part

    def by_layer(
        self,
        name: str,
        group: HeadSet,
        candidates: Sequence[Head],
        measure: Callable[[Top], Tensor],
        score: Callable[[Tensor], np.ndarray],
    ) -> Iterator[np.ndarray]:
        """Ablate the group with each candidate added to it, one layer after the other; yield the scores of each layer.

        `measure` takes from a top what is kept of it. `score` is given that for all candidates of one layer and all
        prompts at once (candidates, prompts, ...), in float32 on the CPU. Nothing is kept for other layers: each block
        of prompts is run anew for each layer, up to that layer, with the group ablated. That costs no more than one
        more candidate in every layer would. The scores of each layer are kept as a part called `name` and the layer,
        and not computed again.
        """
        covering = self.blocks(candidates)
        with tqdm(desc=name, total=sum(len(block.batches) for block in covering), unit="batch") as bar:
            for layer in sorted({head.layer for head in candidates}):
                part = self.parts.load(f"{name}-layer-{layer:04d}")
                if part is None:
                    part = score(self._of_layer(layer, covering, group, candidates, measure, bar.update))
                    self.parts.save(f"{name}-layer-{layer:04d}", part)
                else:
                    bar.update(sum(len(block.of_layer(layer)) for block in covering))
                yield part

    def _of_layer(
        self,
        layer: int,
        covering: Sequence[Block],
        group: HeadSet,
        candidates: Sequence[Head],
        measure: Callable[[Top], Tensor],
        done: Callable[[], object],
    ) -> Tensor:
        """What is measured (candidates of the layer, prompts, ...); `done` is called after each batch."""
        indices = [index for index, head in enumerate(candidates) if head.layer == layer]
        states = torch.empty(0)
        for block in covering:
            kept = self._keep_up_to(layer, block, group)
            for batch in block.of_layer(layer):
                made = measure(self._resume(kept, batch, group, candidates))  # (P * C, ...), prompt by prompt
                made = made.view(len(block.prompts), len(batch.candidates), *made.shape[1:]).transpose(0, 1).cpu()
                if not len(states):
                    states = torch.empty(len(indices), len(self.prompts), *made.shape[2:])
                start = batch.candidates[0] - indices[0]  # the candidates of a layer, and of a batch, follow each other
                states[start : start + len(made), block.prompts] = made
                done()
        return states

    def _keep(self, block: Block) -> tuple[Kept, Top]:
        """A plain pass over the prompts of a block, to resume at every layer of its batches; and its top."""
        self._check()
        layers = {batch.layer for batch in block.batches}
        made = self.whole.of(lambda some: self.passes.keep(self.ids(some), self.ablation, layers=layers), block.prompts)
        return _joined_kept([kept for kept, _ in made], self.ids(block.prompts)), _joined([top for _, top in made])

    def _keep_up_to(self, layer: int, block: Block, group: HeadSet) -> Kept:
        """A pass over the prompts of a block with the group ablated, to resume at one layer."""
        self._check()
        made = self.whole.of(
            lambda some: self.passes.keep_up_to(self.ids(some), self.ablation, group, layer), block.prompts
        )
        return _joined_kept(made, self.ids(block.prompts))

    def _check(self) -> None:
        check_shortcuts(self.passes, max(self.prompts, key=len))

    def ids(self, prompts: Sequence[int]) -> Tensor:
        """The token ids (P, T) of prompts of one length, by their indices."""
        return torch.tensor([list(self.prompts[index]) for index in prompts], device=input_device(self.passes.model))

    def _resume(self, kept: Kept, batch: Batch, group: HeadSet, candidates: Sequence[Head]) -> Top:
        """The top of P prompts x C candidates, each added to the group: P * C rows, prompt by prompt."""
        sets = [tuple(sorted((*group, candidates[index]))) for index in batch.candidates]
        pairs = [(prompt, heads) for prompt in range(len(kept.ids)) for heads in sets]

        def resume(some: list[tuple[int, HeadSet]]) -> Top:
            prompts, sets = [prompt for prompt, _ in some], [heads for _, heads in some]
            return self.passes.resume(kept, prompts, batch.layer, self.ablation, sets)

        return _joined(self.resumed.of(resume, pairs))


def _joined(tops: Sequence[Top]) -> Top:
    """The tops of the pieces of a batch as one."""
    return Top(*(torch.cat(states) for states in zip(*tops))) if len(tops) > 1 else tops[0]


def _joined_kept(kept: Sequence[Kept], ids: Tensor) -> Kept:
    """The pieces of a pass over a block, of all ids (P, T), as one: layer by layer, so that little is there twice."""
    if len(kept) == 1:
        return kept[0]
    return Kept(ids, {layer: torch.cat([piece.inputs.pop(layer) for piece in kept]) for layer in list(kept[0].inputs)})
