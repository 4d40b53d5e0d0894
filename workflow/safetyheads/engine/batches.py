"""Which rows are computed together: a function of the inputs and the token budget alone.

Batch shape changes the last bits of floats, so nothing else (shards, resume point, cores) may decide it. Only where a
batch proves too big for the memory is it computed in pieces.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head

T = TypeVar("T")
U = TypeVar("U")
log = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Candidates of one layer, by their indices, for all prompts of a block."""

    name: str
    layer: int
    candidates: list[int]


class Block(NamedTuple):
    """Prompts of one length, by their indices, and the batches that cover all candidates for them."""

    prompts: list[int]
    batches: list[Batch]


def blocks(lengths: Sequence[int], candidates: Sequence[Head], token_budget: int) -> list[Block]:
    """Cover all pairs (prompt, candidate head) with batches of equal-length prompts: scoring uses no padding.

    A batch has at most `token_budget` tokens, but at least one prompt and one candidate. It takes all candidates of a
    layer where they fit, and a block as many prompts as then fit. Candidates come sorted.
    """
    layers = [
        (layer, list(indices)) for layer, indices in groupby(range(len(candidates)), lambda at: candidates[at].layer)
    ]
    widest = max(len(indices) for _, indices in layers)
    covering: list[Block] = []
    count = 0
    for prompts in equal(lengths, token_budget // widest):
        rows = max(1, token_budget // (lengths[prompts[0]] * len(prompts)))  # of each prompt
        batches: list[Batch] = []
        for layer, indices in layers:
            for chosen in chunks(indices, rows):
                batches.append(Batch(f"{count:06d}", layer, chosen))
                count += 1
        covering.append(Block(prompts, batches))
    return covering


def equal(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Prompts of one length, by their indices, at most `token_budget` tokens together, but at least one prompt."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [
        prompts
        for length, group in groupby(order, key=lambda index: lengths[index])
        for prompts in chunks(list(group), max(1, token_budget // length))
    ]


def padded(prompts: Sequence[Sequence[int]], new_tokens: int, token_budget: int) -> list[list[int]]:
    """Split rows of generation into batches: longest prompts first, rows of one prompt together.

    A batch has at most `token_budget` tokens, padding and new ones included, but at least one row. Returns indices of
    rows.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), prompts[index], index))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        rows = max(1, token_budget // (len(prompts[order[start]]) + new_tokens))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of `size`, the last one perhaps shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


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
