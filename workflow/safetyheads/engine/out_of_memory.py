"""A batch that proves too big for the memory is computed in pieces, and that is recorded.

The number of rows that are computed together changes the last bits of floats. A job that had to cut a batch can
therefore no longer promise the bytes that another machine would give, and whoever reads its results should know.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.batches import chunks
from safetyheads.errors import SafetyHeadsError

T = TypeVar("T")
U = TypeVar("U")
log = logging.getLogger(__name__)

_RECORD = "out_of_memory"


def smallest_piece(parts: Parts) -> int | None:
    """The smallest number of rows that a job's batches were cut to, in this run or before a restart; None if never.

    The record is one of the parts: read it before they are removed. Shards of a cell share their parts, and the record.
    """
    record = parts.load(_RECORD)
    return None if record is None else int(record)


class Pieces:
    """Computes batches whole as long as they fit into the memory, and then in pieces of rows."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.limit: int | None = None  # a restarted job tries whole batches again: it may have got a larger device

    def of(self, compute: Callable[[list[T]], U], rows: Sequence[T]) -> list[U]:
        """What `compute` returns for the rows of a batch, piece by piece, in order.

        When the memory runs out, the pieces are halved and the batch begins anew. Later batches start with that size,
        as they would run out of memory, too. Raises SafetyHeadsError if a single row is too much.
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
            self._halve(size)

    def _halve(self, size: int) -> None:
        self.limit = size // 2
        self.parts.save(_RECORD, np.array(min(self.limit, smallest_piece(self.parts) or self.limit)))
        log.warning(
            "Out of memory with %d rows; going on with at most %d. For results that are the same to the last bit "
            "wherever they are computed, lower `compute: token_budget`.",
            *(size, self.limit),
        )
        clear_device_cache(garbage_collection=True)
