"""A cache of what prompts begin with, which passes over their rest read and add nothing to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

KeysValues = dict[int, tuple[Tensor, Tensor]]
"""Keys and values of U rows, each (U, N_kv, P, d), by layer."""


class PrefixCache(Cache):
    """Keys and values of P tokens before each row of a pass.

    Those of `own` (U = 1) stand before all rows alike. In layers that `above` has, row r reads its row `of_row[r]`.
    """

    def __init__(self, own: KeysValues, above: KeysValues, of_row: Sequence[int]) -> None:
        devices = {keys.device for keys, _ in above.values()}
        rows = {device: torch.tensor(of_row, dtype=torch.long, device=device) for device in devices}
        layers: list[Any] = [
            _ReadLayer(above[at], rows[above[at][0].device]) if at in above else _ReadLayer(own[at])
            for at in sorted(own)
        ]
        super().__init__(layers=layers)


class _ReadLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer: keys and values (U, N_kv, P, d), and which of U each row reads; the only one if it is not said."""

    def __init__(self, kept: tuple[Tensor, Tensor], of_row: Tensor | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(*kept)
        self.kept, self.of_row = kept, of_row

    def get_seq_length(self) -> int:
        """P, before whatever a pass brings."""
        return self.kept[0].shape[2]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The keys and values of the prefix and, behind them, of R rows (R, N_kv, T, d): (R, N_kv, P + T, d)."""
        keys, values = self.kept
        return self._before(keys, key_states), self._before(values, value_states)

    def _before(self, kept: Tensor, states: Tensor) -> Tensor:
        own = kept.expand(len(states), -1, -1, -1) if self.of_row is None else kept[self.of_row]
        return torch.cat([own, states], dim=2)
