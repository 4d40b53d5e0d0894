"""What the rows of a generated batch share: a row that says what the plain model says follows the plain row.

Below its first ablated head such a row is, state for state, what the plain row of its prompt is. So these layers leave
it out, step after step, until it says something else. Then it takes over the plain row's keys and values there, and
goes on by itself.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safetyheads.engine.layer_shortcuts import leading, replaced
from safetyheads.heads import HeadSet

_WORTH = 8  # times as many layers as a plain row costs: what it must leave out to be added, because it takes room, too


class Moves(NamedTuple):
    """How B rows become others: row i is what stood at `order[i]`, and in layers below `starts[i]` at `leads[i]`."""

    order: np.ndarray
    starts: np.ndarray
    leads: np.ndarray

    def sources(self, layer: int, computed: int) -> Tensor:
        """Where keys and values of the first `computed` rows of a layer stood."""
        return torch.from_numpy(np.where(self.starts <= layer, self.order, self.leads)[:computed])


class Followers:
    """The rows of a batch, in the order in which layers take them in: layer l computes the first `computed[l]` alone.

    Row i is `like[i]` of the rows that were asked for; or, where `added[i]`, the plain row of the same prompt. Layers
    below `starts[i]` leave it out, because it is what row `leads[i]` is.
    """

    def __init__(self, keys: Sequence[Hashable], head_sets: Sequence[HeadSet], layers: int) -> None:
        """Rows of one key have the same prompt and the same random numbers, and may follow each other."""
        self.layers = layers
        first = [min((head.layer for head in heads), default=0) for heads in head_sets]
        members: dict[Hashable, list[int]] = {}
        for row, key in enumerate(keys):
            members.setdefault(key, []).append(row)
        like, starts, leads = list(range(len(keys))), [0] * len(keys), list(range(len(keys)))
        for alike in members.values():
            lead = next((row for row in alike if not head_sets[row]), None)
            if lead is None and sum(first[row] for row in alike) >= _WORTH * layers:
                lead = len(like)
                like, starts, leads = [*like, alike[0]], [*starts, 0], [*leads, lead]
            if lead is not None:
                for row in alike:
                    starts[row], leads[row] = first[row], lead
        added = np.arange(len(like)) >= len(keys)
        self._arrange(np.argsort(starts, kind="stable"), np.array(like), added, np.array(starts), np.array(leads))

    def _arrange(
        self, order: np.ndarray, like: np.ndarray, added: np.ndarray, starts: np.ndarray, leads: np.ndarray
    ) -> None:
        place = np.zeros(len(like), dtype=int)
        place[order] = np.arange(len(order))
        self.like, self.added, self.starts = like[order], added[order], starts[order]
        self.leads = np.where(self.starts > 0, place[leads[order]], np.arange(len(order)))
        self.computed = np.searchsorted(self.starts, np.arange(self.layers), side="right").tolist()

    def go_on(self, chosen: np.ndarray, ended: np.ndarray) -> Moves | None:
        """Take note of the tokens that were chosen (B,), and of the rows that end by them; None if no row moves.

        Rows that end leave, and so do plain rows that were added as soon as they leave out less than they cost.
        """
        alike = (self.starts > 0) & (chosen == chosen[self.leads]) & ~ended
        left_out = np.bincount(self.leads[alike], weights=self.starts[alike], minlength=len(self.like))
        gone = ended | (self.added & (left_out < self.layers))
        starts = np.where(alike & ~gone[self.leads], self.starts, 0)
        if not gone.any() and np.array_equal(starts, self.starts):
            return None
        order = _order(np.flatnonzero(~gone), starts)
        moves = Moves(order, self.starts[order], self.leads[order])
        self._arrange(order, self.like, self.added, starts, self.leads)
        return moves

    @contextmanager
    def left_out(self, layers: nn.ModuleList) -> Iterator[None]:
        """Let every layer compute its first rows alone within the block, and put in the others as their leaders are."""
        with ExitStack() as stack:
            for at in range(int(self.starts.max(initial=0))):
                stack.enter_context(replaced(layers[at], leading(layers[at], partial(self._standing_for, at))))
            yield

    def _standing_for(self, layer: int) -> tuple[int, Tensor]:
        """How many rows a layer computes, and which of them stands for each row."""
        places = np.where(self.starts <= layer, np.arange(len(self.starts)), self.leads)
        return self.computed[layer], torch.from_numpy(places)


def _order(kept: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The rows that are kept, by the layer they start at; as many as can stay where they are."""
    wanted = np.sort(starts[kept])  # by place
    order = np.full(len(kept), -1)
    staying = kept[kept < len(kept)]
    staying = staying[wanted[staying] == starts[staying]]
    order[staying] = staying
    others = np.setdiff1d(kept, staying)
    order[order < 0] = others[np.argsort(starts[others], kind="stable")]
    return order
