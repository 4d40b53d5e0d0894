"""A batch that proves too big for the memory is computed in pieces."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from safetyheads.engine.batches import chunks
from safetyheads.errors import SafetyHeadsError

T = TypeVar("T")
U = TypeVar("U")
log = logging.getLogger(__name__)


class Pieces:
    """Computes batches whole as long as they fit into the memory, and then in pieces of rows."""

    def __init__(self) -> None:
        self.limit: int | None = None

    def of(self, compute: Callable[[list[T]], U], rows: Sequence[T]) -> list[U]:
        """What `compute` returns for the rows of a batch, piece by piece, in order.

        Out of memory, the pieces are halved, and later batches begin with that size. Raises SafetyHeadsError if a
        single row is too much.
        """
        while True:
            size = min(len(rows), self.limit or len(rows))
            try:
                return [compute(piece) for piece in chunks(rows, size)]
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if size == 1:
                    raise SafetyHeadsError(
                        "A single row is too much for the memory. Free the device, take a larger one, lower `compute: "
                        "token_budget` (what is kept of a block of prompts follows from it), or set the model's "
                        "`dtype: bfloat16`."
                    ) from None
            self.limit = size // 2
            log.warning(
                "Out of memory with %d rows; going on with at most %d. For results that are the same to the last bit "
                "wherever they are computed, lower `compute: token_budget`.",
                *(size, self.limit),
            )
            clear_device_cache(garbage_collection=True)
