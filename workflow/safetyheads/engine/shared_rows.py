"""Rows of a generated batch that follow the plain row of their prompt, for as long as they say what it says.

Most heads change nothing: their rows say, token by token, what the plain model says. A row that has been fed the same
tokens as the plain row has the same states in all layers below its first ablated head. These layers need not compute it
again. They leave it out, and the plain row's result stands for it. Here layers are columns, and rows of one prompt are
lines:

                 layer 0    layer 1    layer 2    layer 3
    plain        computes   computes   computes   computes    everybody's leader
    L01H03       follows    computes   computes   computes    starts at layer 1
    L02H06       follows    follows    computes   computes    starts at layer 2
    L03H00       follows    follows    follows    computes    starts at layer 3
    computed        1          2          3          4        rows

Rows are kept in the order of the layer that they start at. So each layer computes the first so many rows of the batch,
a slice, and its part of the key/value cache has these rows alone.

Sooner or later a row may say something else than its leader. From then on it is fed other tokens, its states differ in
every layer, and it must start at layer 0. All that it lacks are keys and values of the tokens so far in the layers that
left it out. Up to here they are the leader's, so they are copied from there. Say L02H06 says "Sure" where the plain row
says "Sorry":

    cache of        layer 0    layer 1    layer 2    layer 3
    L02H06 before   none       none       own        own
    L02H06 after    leader's   leader's   own        own         and it moves up to the rows that start at layer 0

Rows that end leave the batch. If a leader ends, so does everyone who still follows it: they have said the same. Rows
whose prompt has no plain row in the batch follow nobody.
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


class Moves(NamedTuple):
    """How the rows of a batch change their places between two tokens: from where each of the B new rows comes.

    A row that follows no longer has two origins. Its own place holds what the layers from `starts` on have computed for
    it; its leader's place holds what the layers below would have.
    """

    order: np.ndarray  # (B,): the place where the row stood
    starts: np.ndarray  # (B,): the layer from which on it has keys and values of its own
    leads: np.ndarray  # (B,): the place where its leader stood

    def sources(self, layer: int, computed: int) -> Tensor:
        """The former places (computed,) of the keys and values of a layer, which computes so many rows from now on."""
        return torch.from_numpy(np.where(self.starts <= layer, self.order, self.leads)[:computed])


class Followers:
    """Who follows whom among the B rows of a batch, and how many rows each layer computes.

    The rows stand in the order of the layer that they start at. Of each one is known:

    - `rows` (B,): which of the rows that the batch began with it is;
    - `starts` (B,): the first layer that computes it; 0 if it does not follow;
    - `leads` (B,): the row that stands for it in the layers below; itself if it does not follow.

    `computed[l]` is the number of rows that layer l computes, the first ones.
    """

    def __init__(self, keys: Sequence[Hashable], head_sets: Sequence[HeadSet], layers: int) -> None:
        """Rows of one key may follow each other: they have the same prompt and draw with the same random numbers."""
        self.layers = layers
        first = [min((head.layer for head in heads), default=0) for heads in head_sets]
        members: dict[Hashable, list[int]] = {}
        for row, key in enumerate(keys):
            members.setdefault(key, []).append(row)
        starts, leads = np.zeros(len(keys), dtype=int), np.arange(len(keys))
        for alike in members.values():
            lead = next((row for row in alike if not head_sets[row]), None)
            if lead is not None:
                for row in alike:
                    starts[row], leads[row] = first[row], lead
        self._arrange(np.argsort(starts, kind="stable"), np.arange(len(keys)), starts, leads)

    def _arrange(self, order: np.ndarray, rows: np.ndarray, starts: np.ndarray, leads: np.ndarray) -> None:
        """Take over the rows `order` (B,) of what stands at the former places (the other arrays), in that order."""
        place = np.zeros(len(rows), dtype=int)
        place[order] = np.arange(len(order))
        self.rows, self.starts = rows[order], starts[order]
        self.leads = np.where(self.starts > 0, place[leads[order]], np.arange(len(order)))
        self.computed = np.searchsorted(self.starts, np.arange(self.layers), side="right").tolist()

    def go_on(self, chosen: np.ndarray, ended: np.ndarray) -> Moves | None:
        """Learn which tokens were chosen (B,) and which rows ended with them (B,). Returns None if no row moves.

        A row that chose another token than its leader follows no longer, and a row that ended leaves the batch.
        """
        starts = np.where(chosen == chosen[self.leads], self.starts, 0)
        if not ended.any() and np.array_equal(starts, self.starts):
            return None
        order = _order(np.flatnonzero(~ended), starts)
        moves = Moves(order, self.starts[order], self.leads[order])
        self._arrange(order, self.rows, starts, self.leads)
        return moves

    @contextmanager
    def left_out(self, layers: nn.ModuleList) -> Iterator[None]:
        """Within the block, each layer computes its first rows alone, and gives followers the results of leaders."""
        with ExitStack() as stack:
            for at in range(int(self.starts.max(initial=0))):
                stack.enter_context(replaced(layers[at], leading(layers[at], partial(self._standing_for, at))))
            yield

    def _standing_for(self, layer: int) -> tuple[int, Tensor]:
        """How many rows a layer computes, and which of them stands for each row of the batch (B,)."""
        places = np.where(self.starts <= layer, np.arange(len(self.starts)), self.leads)
        return self.computed[layer], torch.from_numpy(places)


def _order(kept: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The rows that are kept (K,), in the order of the layer they start at (B,): which row comes to each place.

    Where rows start at the same layer, their order is free. So as many as possible stay where they are: the cache need
    not copy their keys and values.
    """
    wanted = np.sort(starts[kept])  # (K,): the layer that the row at each place starts at
    order = np.full(len(kept), -1)
    staying = kept[kept < len(kept)]
    staying = staying[wanted[staying] == starts[staying]]
    order[staying] = staying
    others = np.setdiff1d(kept, staying)
    order[order < 0] = others[np.argsort(starts[others], kind="stable")]
    return order
