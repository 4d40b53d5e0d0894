"""A key/value cache with room for whole completions, whose rows may leave.

The memory of a layer is made once, for all rows and for all tokens that may come. Here rows are lines and positions are
columns:

    place 0   . . p p p p  n n n _ _ _     .  padding, zeros         n  new tokens
    place 1   p p p p p p  n n n _ _ _     p  the row's prompt       _  free
    place 2   . p p p p p  n n n _ _ _
              -- width --  -new tokens-

Attention sees the rows and the positions that are filled, as a view: a new token is written into the next free column,
and nothing else is copied. When the row at place 1 ends, a row from further down moves to its place, and the view gets
a line shorter:

    place 0   . . p p p p  n n n _ _ _
    place 1   . p p p p p  n n n _ _ _     copied from place 2

`Filling` makes such a cache from passes over the prompts: all rows of the batch that share a prompt get its keys and
values from one pass.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from safetyheads.engine.decoder import input_device
from safetyheads.errors import SafetyHeadsError


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer, in memory that is there from the start.

    The layer of transformers would make new memory and copy everything for each new token, and whenever rows leave.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        """`keys` and `values` (B, N_kv, capacity, d), of which `length` positions are filled."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.room = keys, values
        self._show(len(keys), length)

    def _show(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Let the first rows and positions be what is seen: two views (rows, N_kv, length, d)."""
        self.length = length
        keys, values = (room[:rows, :, :length] for room in self.room)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens (B, N_kv, T, d); return those of all tokens.

        A layer that some rows are left out of brings fewer rows than it has: they are the first ones.
        """
        rows, end = len(key_states), self.length + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states)):
            room[:rows, :, self.length : end] = states
        return self._show(rows, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` (B,), in this order; a row may be kept twice. What stays in place is not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for room in self.room:
            room[moved, :, : self.length] = room[indices[moved], :, : self.length]
        self._show(len(indices), self.length)


def select_rows(cache: Cache, rows: Sequence[Tensor]) -> None:
    """Keep the rows `rows[l]` (B of the layer,) of layer l of a cache, in this order.

    Layers may be on different devices. The indices go where the layer's keys and values are, if it has any yet.
    """
    layers: Sequence[Any] = cache.layers
    for layer, of_layer in zip(layers, rows):
        layer.batch_select_indices(of_layer.to(layer.keys.device) if layer.get_seq_length() else of_layer)


class Places(NamedTuple):
    """Where the rows of a pass over prompts go in the batch: one entry for each of C copies that are made.

    A row of the pass may go to many rows of the batch, those that share its prompt. And it may go there in some layers
    only, because the others come from another pass, or are left out and never read.
    """

    source: Tensor  # (C,): the row of the pass
    to: Tensor  # (C,): the row of the batch
    first: Tensor  # (C,): the first layer that is copied
    last: Tensor  # (C,): the last one


class Filling:
    """A cache that is being filled: it collects logits, keys and values of B rows from passes over their prompts."""

    def __init__(self, model: PreTrainedModel, rows: int, width: int, new_tokens: int) -> None:
        """Make a cache for prompts of `width` tokens, padding included, with room for `new_tokens` more.

        Raises SafetyHeadsError for a model with recurrent layers: their states are no keys and values of positions.
        """
        self.rows, self.width, self.capacity, self.device = rows, width, width + new_tokens, input_device(model)
        self.logits = torch.empty(0)  # (B, vocabulary)
        self.divergence = torch.full((rows,), torch.nan, dtype=torch.float64)  # (B,)
        self.result = DynamicCache(config=model.config)
        self.rooms: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values (B, N_kv, capacity, d) by layer
        other = {type(layer).__name__ for layer in self.result.layers} - {known.__name__ for known in _LAYERS}
        if other:
            raise SafetyHeadsError(
                f"{type(model).__name__} keeps more than keys and values between tokens ({', '.join(sorted(other))}): "
                "completions of such models are not supported."
            )

    def places(self, members: Sequence[Sequence[int]], layers: Mapping[int, tuple[int, int]] | None = None) -> Places:
        """The places of a pass whose row u goes to each row r in `members[u]` of the batch.

        `layers[r]` are the first and the last layer that row r gets from this pass; it gets all of them if not named.
        """
        every = (0, len(self.result.layers))
        quads = [(at, row, *(layers or {}).get(row, every)) for at, rows in enumerate(members) for row in rows]
        return Places(*torch.tensor(quads, device=self.device).T)

    def into(self, places: Places) -> Cache:
        """A cache for one pass over prompts of one length, that sends keys and values to these places."""
        return Cache(layers=[_Into(self, layer, places) for layer in range(len(self.result.layers))])

    def take(self, places: Places, logits: Tensor, divergence: Tensor | None = None) -> None:
        """Put the logits of a pass with U rows (U, vocabulary), and what ablation did to them (U,), to their places."""
        if not len(self.logits):
            self.logits = logits.new_empty(self.rows, logits.shape[1])
        self.logits[places.to] = logits[places.source]
        if divergence is not None:
            self.divergence[places.to.cpu()] = divergence.cpu()[places.source.cpu()]

    def room(self, layer: int, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The memory of a layer (B, N_kv, capacity, d) for keys and for values, made when its first `states` come.

        It is not cleared: whatever is read of it later, passes over prompts and new tokens write before.
        """
        if layer not in self.rooms:
            keys, values = (made.new_empty(self.rows, self.capacity, made.shape[1], made.shape[3]) for made in states)
            self.rooms[layer] = keys.transpose(1, 2), values.transpose(1, 2)  # a token's states lie together
        return self.rooms[layer]

    def cache(self) -> DynamicCache:
        """All that was collected, as a cache to go on with."""
        for index in list(self.rooms):
            keys, values = self.rooms.pop(index)
            layer: Any = self.result.layers[index]
            if _roomy(layer, self.capacity):
                self.result.layers[index] = RoomyLayer(keys, values, self.width)
            else:
                layer.update(keys[:, :, : self.width], values[:, :, : self.width])
        return self.result


class _Into(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer of the cache that a pass over prompts is given: it keeps nothing, and hands on what it gets.

    The pass attends to its own keys and values. The batch gets them with padding of zeros on the left.
    """

    def __init__(self, filling: Filling, layer: int, places: Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        wanted = (places.first <= layer) & (layer <= places.last)
        self.filling, self.layer, self.source, self.to = filling, layer, places.source[wanted], places.to[wanted]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Hand on keys and values (U, N_kv, T, d), and return them."""
        made = key_states, value_states
        to, source = (places.to(key_states.device) for places in (self.to, self.source))  # where this layer computes
        padding = self.filling.width - key_states.shape[2]
        for room, states in zip(self.filling.room(self.layer, made), made):
            room[to, :, :padding] = 0
            room[to, :, padding : self.filling.width] = states[source]
        return made


def takes_fewer_rows(model: PreTrainedModel, capacity: int) -> bool:
    """Whether every layer of a cache of so many positions is a `RoomyLayer`, which takes a batch's first rows alone."""
    return all(_roomy(layer, capacity) for layer in DynamicCache(config=model.config).layers)


def _roomy(layer: Any, capacity: int) -> bool:
    """Whether a layer keeps all positions. One whose sliding window is shorter throws old ones away by itself."""
    return getattr(layer, "sliding_window", capacity) >= capacity


_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
