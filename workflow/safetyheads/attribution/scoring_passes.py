"""Every candidate head over every prompt: what Ships and Sahara have in common.

Both go from layer to layer (`ClimbingPass`). Ships scores prompts one by one, and keeps what is measured of each batch
(`Sweep.by_batch`). Sahara compares matrices of all prompts, and so has the states of one layer's candidates for all
prompts in memory at a time (`Sweep.by_layer`): those of all layers would not fit.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.beginning import Beginning
from safetyheads.attribution.climbing_pass import ClimbingPass, joined
from safetyheads.engine.batches import Batch, Block, blocks, chunks, equal
from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.engine.shared_prefix import shared_tokens
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
        # Rows of prompts, of prompts x candidates, and of what all prompts begin with x candidates.
        self.whole, self.resumed, self.prefixes = Pieces(parts), Pieces(parts), Pieces(parts)
        self.shared = shared_tokens(model, prompts, token_budget)
        layers, heads = grid(model)
        self.kept_tokens = layers * token_budget // heads
        """Of how many tokens the input of a layer is kept: as much as all layers' for prompts of one full batch."""

    def blocks(self, candidates: Sequence[Head]) -> list[Block]:
        """The batches that cover these candidates."""
        return blocks(list(map(len, self.prompts)), candidates, self.token_budget)

    def plain(self, measure: Callable[[Top], Tensor]) -> Tensor:
        """Ablate nothing; return what is measured (prompts, ...) of each prompt."""
        self.check()
        made, order, beginning = [], [], Beginning(self, (), layers=())

        def run(some: list[int]) -> Top:
            return self.passes.whole(beginning.rest(some), None, [()] * len(some), beginning.cache())

        for batch in equal(list(map(len, self.prompts)), self.token_budget):
            made.append(measure(joined(self.whole.of(run, batch))))
            order += batch
        return torch.cat(made).cpu()[torch.tensor(order).argsort()]

    def by_prompt(self, name: str, compute: Callable[[Tensor], Tensor], token_budget: int | None = None) -> np.ndarray:
        """What `compute` makes of token ids (P, T) of one length, (P, ...), for all prompts: (prompts, ...).

        A batch has at most `token_budget` tokens, those of the sweep if none are given. Each is kept as a part called
        `name` and its number, and not computed again.
        """
        batches = equal(list(map(len, self.prompts)), token_budget or self.token_budget)
        return self._by_row(name, batches, lambda rows: compute(self.ids(rows)))

    def of_sets(self, name: str, sets: Sequence[HeadSet], measure: Callable[[Top], Tensor]) -> np.ndarray:
        """Ablate each head set in passes over all prompts; return what is measured, (prompts, sets, ...).

        `measure` takes what is kept, (R, ...), from the top of R rows. Rows of any prompts and sets share a batch, but
        where the prompts begin alike, only of as many sets as that is run for at once. Each batch is kept as a part
        called `name` and its number, and not computed again.
        """
        beginning, count = Beginning(self, (), layers=[0]), len(sets)
        at_once = self.token_budget // len(self.shared) if self.shared else count
        batches: list[list[int]] = []
        for some in chunks(range(count), at_once):
            rows = [prompt * count + at for prompt in range(len(self.prompts)) for at in some]
            lengths = [len(self.prompts[row // count]) for row in rows]
            batches += [[rows[place] for place in batch] for batch in equal(lengths, self.token_budget)]

        def compute(rows: list[int]) -> Tensor:
            self.check()
            prompts, chosen = [row // count for row in rows], [row % count for row in rows]
            first = chosen[0] // at_once * at_once
            beginning.resume(0, sets[first : first + at_once])
            before = beginning.cache([at - first for at in chosen])
            return measure(
                self.passes.whole(beginning.rest(prompts), self.ablation, [sets[at] for at in chosen], before)
            )

        made = self._by_row(name, batches, compute)
        return made.reshape(len(self.prompts), count, *made.shape[1:])

    def _by_row(self, name: str, batches: Sequence[list[int]], compute: Callable[[list[int]], Tensor]) -> np.ndarray:
        """What `compute` gives for batches of rows, by their indices, in the order of these: (rows, ...)."""
        made = []
        for number, batch in enumerate(tqdm(batches, desc=name, unit="batch")):
            part = self.parts.load(f"{name}-{number:06d}")
            if part is None:
                part = torch.cat(self.whole.of(compute, batch)).cpu().numpy()
                self.parts.save(f"{name}-{number:06d}", part)
            made.append(part)
        return np.concatenate(made)[np.concatenate(batches).argsort()]

    def by_batch(
        self, name: str, candidates: Sequence[Head], measure: Measure
    ) -> Iterator[tuple[Block, Batch, np.ndarray]]:
        """Ablate each candidate, one layer after the other; yield, batch by batch, what is measured.

        What is measured compares with the plain top of the batch's prompts. Each batch is kept as a part called `name`
        and its own name, and not computed again.
        """
        covering = self.blocks(candidates)
        with tqdm(desc=name, total=sum(len(block.batches) for block in covering), unit="batch") as bar:
            for together in self._together(covering):
                climb, plain = ClimbingPass(self, (), candidates), dict[int, Top]()
                batches = [(block, batch) for block in together for batch in block.batches]
                for block, batch in sorted(batches, key=lambda pair: pair[1].layer):
                    part = self.parts.load(f"{name}-{batch.name}")
                    if part is None:
                        if (at := block.prompts[0]) not in plain:
                            plain[at] = climb.top(block)
                        part = measure(plain[at], climb.resume(block, batch)).cpu().numpy()
                        self.parts.save(f"{name}-{batch.name}", part)
                    bar.update()
                    yield block, batch, part

    def _together(self, covering: Sequence[Block]) -> list[list[Block]]:
        """Blocks that are climbed together: of as many tokens as `kept_tokens`, or one block."""
        lists: list[list[Block]] = []
        room = 0
        for block in covering:
            tokens = len(block.prompts) * len(self.prompts[block.prompts[0]])
            if not lists or tokens > room:
                lists.append([])
                room = self.kept_tokens
            lists[-1].append(block)
            room -= tokens
        return lists

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
        prompts at once (candidates, prompts, ...), in float32 on the CPU. The scores of each layer are kept as a part
        called `name` and the layer, and not computed again.
        """
        covering = self.blocks(candidates)
        climb = ClimbingPass(self, group, candidates)
        with tqdm(desc=name, total=sum(len(block.batches) for block in covering), unit="batch") as bar:
            for layer in sorted({head.layer for head in candidates}):
                part = self.parts.load(f"{name}-layer-{layer:04d}")
                if part is None:
                    part = score(self._of_layer(layer, covering, climb, measure, bar.update))
                    self.parts.save(f"{name}-layer-{layer:04d}", part)
                else:
                    bar.update(sum(len(block.of_layer(layer)) for block in covering))
                yield part

    def _of_layer(
        self,
        layer: int,
        covering: Sequence[Block],
        climb: ClimbingPass,
        measure: Callable[[Top], Tensor],
        done: Callable[[], object],
    ) -> Tensor:
        """What is measured (candidates of the layer, prompts, ...); `done` is called after each batch."""
        indices = climb.indices(layer)
        states = torch.empty(0)
        for block in covering:
            for batch in block.of_layer(layer):
                made = measure(climb.resume(block, batch))  # (P * C, ...), prompt by prompt
                made = made.view(len(block.prompts), len(batch.candidates), *made.shape[1:]).transpose(0, 1).cpu()
                if not len(states):
                    states = torch.empty(len(indices), len(self.prompts), *made.shape[2:])
                start = batch.candidates[0] - indices[0]  # the candidates of a layer, and of a batch, follow each other
                states[start : start + len(made), block.prompts] = made
                done()
        return states

    def check(self) -> None:
        """Try the shortcuts of the model that these prompts have a use for, once."""
        highest = Shortcut.PREFIX if self.shared else Shortcut.SPLIT
        check_shortcuts(self.passes, max(self.prompts, key=len), highest)

    def ids(self, prompts: Sequence[int], after: int = 0) -> Tensor:
        """The token ids (P, T) of prompts of one length, by their indices, without the first tokens, `after` many."""
        rows = [list(self.prompts[index][after:]) for index in prompts]
        return torch.tensor(rows, device=input_device(self.passes.model))
