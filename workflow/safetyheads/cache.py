"""A key/value cache with room for whole completions, whose rows may leave."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

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
        self.rows, self.length = rows, length
        keys, values = (room[:rows, :, :length] for room in self.room)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens (B, N_kv, T, d); return those of all tokens."""
        end = self.length + key_states.shape[2]
        for room, states in zip(self.room, (key_states, value_states)):
            room[: self.rows, :, self.length : end] = states
        return self._show(self.rows, end)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order. Rows that keep their place are not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for room in self.room:
            room[moved, :, : self.length] = room[indices[moved], :, : self.length]
        self._show(len(indices), self.length)


class Filling:
    """Collects what passes over prompts leave for B rows: logits, and keys and values as (B, N_kv, capacity, d)."""

    def __init__(self, model: PreTrainedModel, rows: int, width: int, new_tokens: int) -> None:
        """`width` is the length of the prompts, padding included. Raises SafetyHeadsError for recurrent layers."""
        self.model, self.rows, self.width, self.capacity = model, rows, width, width + new_tokens
        self.empty = DynamicCache(config=model.config)
        self.logits = torch.empty(0)
        self.states: dict[int, tuple[Tensor, Tensor]] = {}  # by layer
        other = {type(layer).__name__ for layer in self.empty.layers} - {known.__name__ for known in _LAYERS}
        if other:
            raise SafetyHeadsError(
                f"{type(model).__name__} keeps more than keys and values between tokens ({', '.join(sorted(other))}): "
                "completions of such models are not supported."
            )

    def take(
        self,
        rows: Sequence[Sequence[int]],
        logits: Tensor,
        cache: DynamicCache,
        layers: Iterable[int],
        chosen: Sequence[int] | None = None,
    ) -> None:
        """Copy row `chosen[u]` (default u) of the logits and of these layers of a cache to each of `rows[u]`."""
        sources = range(len(rows)) if chosen is None else chosen
        to, source = torch.tensor(
            [(row, source) for members, source in zip(rows, sources) for row in members], device=logits.device
        ).T
        if not len(self.logits):
            self.logits = logits.new_empty(self.rows, logits.shape[1])
        self.logits[to] = logits[source]
        for index in layers:
            layer: Any = cache.layers[index] if index < len(cache.layers) else None
            if layer is None or not layer.is_initialized:
                continue  # it shares the keys and values of another layer
            room = self.states.get(index)
            if room is None:
                keys, values = (self._room(states) for states in (layer.keys, layer.values))
                room = self.states[index] = keys, values
            for place, states in zip(room, (layer.keys, layer.values)):
                place[to, :, : self.width] = states[source]

    def _room(self, states: Tensor) -> Tensor:
        return states.new_zeros(self.rows, states.shape[1], self.capacity, states.shape[3])

    def cache(self) -> DynamicCache:
        """All that was taken, as a cache to go on with."""
        for index, (keys, values) in self.states.items():
            layer: Any = self.empty.layers[index]
            if getattr(layer, "sliding_window", self.capacity) >= self.capacity:
                self.empty.layers[index] = RoomyLayer(keys, values, self.width)
            else:
                layer.update(keys[:, :, : self.width], values[:, :, : self.width])
        self.states.clear()
        return self.empty


_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
