"""Which rows are computed together: a function of the inputs and the token budget alone.

Batch shape changes the last bits of floats, so nothing else (shards, resume point, cores) may decide it.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from safetyheads.heads import Head

T = TypeVar("T")


class Batch(NamedTuple):
    """Candidates of one layer, by their indices, for all prompts of a block."""

    name: str
    layer: int
    candidates: list[int]


class Block(NamedTuple):
    """Prompts of one length, by their indices, and the batches that cover all candidates for them."""

    prompts: list[int]
    batches: list[Batch]

    def of_layer(self, layer: int) -> list[Batch]:
        """The batches of candidates in this layer."""
        return [batch for batch in self.batches if batch.layer == layer]


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
