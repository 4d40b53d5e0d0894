"""A key/value cache with room for whole completions, whose rows may leave."""

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

    The layer of transformers copies all of them for each new token, and whenever rows leave.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        """`keys` and `values` (B, N_kv, capacity, d), of which `length` positions are filled."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.room = keys, values
        self._show(len(keys), length)

    def _show(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        self.length = length
        keys, values = (room[:rows, :, :length] for room in self.room)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens (B, N_kv, T, d); return those of all tokens. Fewer rows: the first ones."""
        rows, end = len(key_states), self.length + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states)):
            room[:rows, :, self.length : end] = states
        return self._show(rows, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order; one may be there twice. Rows that keep their place are not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for room in self.room:
            room[moved, :, : self.length] = room[indices[moved], :, : self.length]
        self._show(len(indices), self.length)


def select_rows(cache: Cache, rows: Sequence[Tensor]) -> None:
    """Keep `rows[l]` of layer l of a cache, by index, in this order, whatever device its keys and values are on."""
    layers: Sequence[Any] = cache.layers
    for layer, of_layer in zip(layers, rows):
        layer.batch_select_indices(of_layer.to(layer.keys.device) if layer.get_seq_length() else of_layer)


class Places(NamedTuple):
    """Row `source[i]` of a pass over prompts is for row `to[i]` of the batch, in layers `first[i]` to `last[i]`."""

    source: Tensor
    to: Tensor
    first: Tensor
    last: Tensor


class Filling:
    """Collects logits, keys and values of B rows from passes over their prompts, with room for what follows."""

    def __init__(self, model: PreTrainedModel, rows: int, width: int, new_tokens: int) -> None:
        """`width` is the length of the prompts, padding included. Raises SafetyHeadsError for recurrent layers."""
        self.rows, self.width, self.capacity, self.device = rows, width, width + new_tokens, input_device(model)
        self.logits = torch.empty(0)  # (B, vocabulary)
        self.result = DynamicCache(config=model.config)
        self.rooms: dict[int, tuple[Tensor, Tensor]] = {}  # keys and values (B, N_kv, capacity, d) by layer
        other = {type(layer).__name__ for layer in self.result.layers} - {known.__name__ for known in _LAYERS}
        if other:
            raise SafetyHeadsError(
                f"{type(model).__name__} keeps more than keys and values between tokens ({', '.join(sorted(other))}): "
                "completions of such models are not supported."
            )

    def places(self, members: Sequence[Sequence[int]], layers: Mapping[int, tuple[int, int]] | None = None) -> Places:
        """Where row u of a pass goes: to each row r of `members[u]`, in all layers or first and last of `layers[r]`."""
        every = (0, len(self.result.layers))
        quads = [(at, row, *(layers or {}).get(row, every)) for at, rows in enumerate(members) for row in rows]
        return Places(*torch.tensor(quads, device=self.device).T)

    def into(self, places: Places) -> Cache:
        """A cache for one pass over prompts, whose keys and values go to these places."""
        return Cache(layers=[_Into(self, layer, places) for layer in range(len(self.result.layers))])

    def take(self, places: Places, logits: Tensor) -> None:
        """Put the logits of a pass (U, vocabulary) to their places."""
        if not len(self.logits):
            self.logits = logits.new_empty(self.rows, logits.shape[1])
        self.logits[places.to] = logits[places.source]

    def room(self, layer: int, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The memory of a layer, made when its first keys and values come; passes over prompts fill what is read."""
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
    """A layer of the cache of a pass over prompts, that keeps nothing itself. Shorter prompts get padding of zeros."""

    def __init__(self, filling: Filling, layer: int, places: Places) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        wanted = (places.first <= layer) & (layer <= places.last)
        self.filling, self.layer, self.source, self.to = filling, layer, places.source[wanted], places.to[wanted]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        made = key_states, value_states
        to, source = (places.to(key_states.device) for places in (self.to, self.source))  # where this layer computes
        padding = self.filling.width - key_states.shape[2]
        for room, states in zip(self.filling.room(self.layer, made), made):
            room[to, :, :padding] = 0
            room[to, :, padding : self.filling.width] = states[source]
        return made


def takes_fewer_rows(model: PreTrainedModel, capacity: int) -> bool:
    """Whether caches of `Filling`, of so many positions, take keys and values of a batch's first rows alone."""
    return all(_roomy(layer, capacity) for layer in DynamicCache(config=model.config).layers)


def _roomy(layer: Any, capacity: int) -> bool:
    return getattr(layer, "sliding_window", capacity) >= capacity


_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
