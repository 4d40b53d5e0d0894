"""The arithmetic and memory traffic of scoring and generation, by formulas that are right within a few per cent.

Only products of weights count, 2 operations for each weight and token: attention's own are few beside them, unless
prompts have thousands of tokens. Ablated heads are taken to be spread evenly over the layers, so that one makes half of
them run again. `benchmarks/flops.py` counts exactly, and a test compares both.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions, as a token meets them: of a mixture of experts, those that are in use."""

    layers: int
    heads: int
    hidden: int
    intermediate: int  # of an MLP with a gate
    vocabulary: int
    kv_heads: int
    head_dim: int | None = None  # hidden / heads unless given
    tied: bool = False  # embedding and output layer are one matrix
    resting: int = 0  # weights of experts that a token does not use

    @property
    def keys_and_values(self) -> int:  # numbers that one position leaves in the cache of one layer
        return 2 * self.kv_heads * (self.head_dim or self.hidden // self.heads)

    @property
    def layer(self) -> int:  # weights of one layer, norms left out
        of_attention = self.keys_and_values // self.kv_heads * (self.heads + self.kv_heads)
        return self.hidden * (of_attention + 3 * self.intermediate)

    @property
    def weights(self) -> int:  # that a token meets
        return self.layers * self.layer + self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:  # that have to be loaded
        return self.weights + self.resting + (0 if self.tied else self.hidden * self.vocabulary)


class Work(NamedTuple):
    """What a job does: operations, bytes moved, calls of layers, batches; bytes of the weights and of one batch."""

    operations: float
    moved: float
    calls: float
    batches: int
    weights: int
    batch: int


def work(
    shape: Shape, prompts: int, tokens: int, sets: int, samples: int, new_tokens: int, budget: int, width: int
) -> Work:
    """Complete each prompt `samples` times with each head set. Scoring makes one token with each head as a set.

    A prompt passes all layers once without ablation; then a batch passes half of them, those above its ablated heads.
    That makes the first new token. Each further one takes a pass through all layers, and reads the cache.
    """
    rows, length, cache = prompts * sets * samples, tokens + new_tokens, shape.layers * shape.keys_and_values
    ablated = (shape.layers - 1) / 2 * shape.layer
    completion = shape.hidden * shape.vocabulary + (new_tokens - 1) * shape.weights
    operations = 2 * (prompts * tokens * (shape.weights + sets * ablated) + rows * completion)
    batches = ceil(rows / max(1, budget // length))
    passes, read = batches * (new_tokens - 0.5), rows * (new_tokens - 1) * (tokens + length) / 2
    batch = min(budget, rows * length) * (20 * shape.hidden + cache)
    moved = passes * shape.weights + read * cache
    return Work(operations, moved * width, passes * shape.layers, batches, shape.parameters * width, batch * width)
