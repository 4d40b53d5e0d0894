"""Which rows are computed together: this follows from the inputs and the token budget, and from nothing else.

The shape of a batch changes the last bits of floats. If shards, cores or the point where a job was restarted had a say
in it, the same inputs would not give the same bytes.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from safetyheads.heads import Head

T = TypeVar("T")


class Batch(NamedTuple):
    """Some candidates of one layer, by their indices, for all prompts of a block."""

    name: str
    layer: int
    candidates: list[int]


class Block(NamedTuple):
    """Some prompts of one length, by their indices, and batches that together have all candidates."""

    prompts: list[int]
    batches: list[Batch]

    def of_layer(self, layer: int) -> list[Batch]:
        """The batches of candidates in this layer."""
        return [batch for batch in self.batches if batch.layer == layer]


def blocks(lengths: Sequence[int], candidates: Sequence[Head], token_budget: int) -> list[Block]:
    """Cover all pairs of a prompt and a candidate with batches whose prompts have one length: scoring uses no padding.

    A batch has at most `token_budget` tokens, but at least one prompt and one candidate. The rows of a prompt share
    some work, so a batch takes all candidates of a layer where they fit, and a block as many prompts as then fit.
    Candidates come sorted.
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
    """Lists of prompts of one length, by their indices: each of at most `token_budget` tokens, or of one prompt."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [
        prompts
        for length, group in groupby(order, key=lambda index: lengths[index])
        for prompts in chunks(list(group), max(1, token_budget // length))
    ]


def padded(
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    token_budget: int,
    side: Callable[[int], Hashable] = lambda tokens: None,
    paired: Sequence[Hashable] = (),
) -> list[list[int]]:
    """Split rows of generation into batches, by their indices.

    Rows are sorted by length, longest first, so that there is little padding; and rows of one prompt stand together, so
    that they can share its pass. A batch has at most `token_budget` tokens, padding and new ones included, but at least
    one row. All prompts of a batch have one `side`, which is a function of their length: see `positions`.

    `paired`, if given, has a key for each row. Then a batch has one more row for each different key: the plain row that
    the rows of this key are compared with.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), prompts[index], index))
    batches: list[list[int]] = []
    for _, group in groupby(order, key=lambda index: side(len(prompts[index]))):
        together, start = list(group), 0
        while start < len(together):
            room = max(1, token_budget // (len(prompts[together[start]]) + new_tokens))
            end, keys = start + 1, {paired[together[start]]} if paired else set()
            while end < len(together) and end < start + room:
                keys |= {paired[together[end]]} if paired else set()
                if end + 1 - start + len(keys) > room:
                    break
                end += 1
            batches.append(together[start:end])
            start = end
    return batches


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of `size`, the last one perhaps shorter."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
