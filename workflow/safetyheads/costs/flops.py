"""The arithmetic and memory traffic of scoring and generation, by formulas that are right within a few per cent.

Only products of weights count, 2 operations for each weight and token: attention's own are few beside them, unless
prompts have thousands of tokens. Ablated heads are taken to be spread evenly over the layers, so that one makes half of
them run again. `benchmarks/flops.py` counts exactly, and a test compares both, without plain rows and likelihoods.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

CHECKED_TOKENS, CHECKED_OF_LAYER, CHECKED_PASSES = 790, 8, 25
"""Tokens of the check of a model, besides those for each of its layers and one plain row; passes, kernels' included."""


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
    shape: Shape,
    prompts: int,
    tokens: int,
    sets: int,
    samples: int,
    new_tokens: int,
    budget: int,
    width: int,
    *,
    paired: bool = False,
    likelihoods: bool = False,
) -> Work:
    """Complete each prompt `samples` times with each head set. Scoring makes one token with each head as a set.

    A prompt passes all layers once without ablation; then a batch passes half of them, those above its ablated heads.
    That makes the first new token. Each further one takes a pass through all layers, and reads the cache.

    With `paired`, batches also hold plain rows: one for each prompt and sample, and one for each sample where a batch
    ends among the rows of a prompt, as nearly all do. With `likelihoods`, each different text passes the plain model
    once more, together with its prompt. As many texts are taken to be different as the plain model has: of a plan with
    many head sets most answers are those, and of any other every answer counts.
    """
    length, cache = tokens + new_tokens, shape.layers * shape.keys_and_values
    of_batch, rows = max(1, budget // length), prompts * sets * samples
    plain = samples * (prompts + ceil(rows / of_batch)) if paired else 0
    ablated = prompts * sets * tokens * (shape.layers - 1) / 2 * shape.layer
    rows += plain
    completion = shape.hidden * shape.vocabulary + (new_tokens - 1) * shape.weights
    judged = prompts * samples * length if likelihoods else 0
    operations = 2 * ((prompts * tokens + judged) * shape.weights + ablated + rows * completion)
    batches = ceil(rows / of_batch)
    passes, read = batches * (new_tokens - 0.5), rows * (new_tokens - 1) * (tokens + length) / 2
    passes += judged / length
    batch = min(budget, rows * length) * (20 * shape.hidden + cache)
    moved = passes * shape.weights + read * cache
    return Work(operations, moved * width, passes * shape.layers, batches, shape.parameters * width, batch * width)


def reading(shape: Shape, texts: int, tokens: int, budget: int, width: int) -> Work:
    """Read so many texts of so many tokens once, and compute what comes behind each."""
    batches = ceil(texts / max(1, budget // tokens))
    operations = 2.0 * texts * (tokens * shape.layers * shape.layer + shape.hidden * shape.vocabulary)
    states = min(budget, texts * tokens) * 20 * shape.hidden
    moved = float(batches * shape.weights * width)
    return Work(operations, moved, batches * shape.layers, batches, shape.parameters * width, states * width)


def checking(shape: Shape, width: int) -> Work:
    """Check a model (`engine/model_checks`): passes over a few random prompts, some of them with eager attention."""
    tokens, passes = CHECKED_TOKENS + CHECKED_OF_LAYER * (shape.layers + 1), CHECKED_PASSES
    states = tokens * (20 * shape.hidden + shape.layers * 2 * shape.keys_and_values)
    operations, moved = 2.0 * tokens * shape.weights, float(passes * shape.weights * width)
    return Work(operations, moved, passes * shape.layers, 1, shape.parameters * width, states * width)
