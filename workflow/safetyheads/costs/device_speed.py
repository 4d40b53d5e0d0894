"""What a job costs: operations, bytes and calls of layers, the seconds that a device takes for them, its memory.

An upper estimate: completions are counted at their full length, though many end earlier.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil, inf
from typing import NamedTuple

from safetyheads.costs.flops import (
    decoding,
    generation_bytes,
    generation_operations,
    plain_pass,
    scoring_bytes,
    scoring_operations,
)
from safetyheads.costs.model_sizes import ModelSize

TERA, GIGA = 1e12, 1e9
LENGTHS = 16  # scoring makes batches of one length: so many different ones are taken to be in a data set


class Work(NamedTuple):
    """Operations, bytes moved, and calls of single layers."""

    operations: float
    bytes: float
    calls: float


class Rate(NamedTuple):
    """What a device achieves in one kind of work: operations and bytes per second, seconds of a layer's call.

    The latter come besides the arithmetic: Python's, and for the start of kernels. A GPU moves and computes at once; a
    CPU's products first bring the weights into another order, call by call.
    """

    operations: float
    bandwidth: float = inf
    call: float = 0.0
    at_once: bool = True

    def seconds(self, work: Work) -> float:
        both = work.operations / self.operations, work.bytes / self.bandwidth
        return (max(both) if self.at_once else sum(both)) + work.calls * self.call


class Speed(NamedTuple):
    """How fast jobs are: scoring, generation, seconds until a model is loaded, and its bytes per second."""

    scoring: Rate
    generation: Rate
    start: float
    loading: float = GIGA


class Peak(NamedTuple):
    """A GPU's datasheet: dense operations per second by type of number, bytes per second."""

    bfloat16: float
    tf32: float
    float32: float
    bandwidth: float


GPUS = {
    "a100": Peak(312 * TERA, 156 * TERA, 19.5 * TERA, 2039 * GIGA),
    "h100": Peak(989 * TERA, 494 * TERA, 67 * TERA, 3350 * GIGA),
    "h200": Peak(989 * TERA, 494 * TERA, 67 * TERA, 4800 * GIGA),
}
"""NVIDIA's datasheets: A100 SXM 80 GB, H100 SXM, H200 SXM; without sparsity."""

OF_PEAK, OF_BANDWIDTH, GPU_CALL, GPU_START = 0.5, 0.7, 0.5e-3, 30.0
"""What a GPU is assumed to achieve of its datasheet, seconds of a layer's call and of a start: not measured yet."""

CPU_SCORING, CPU_GENERATION, CPU_BANDWIDTH = 0.0775 * TERA, 0.07 * TERA, 4.3 * GIGA
"""For each thread of an AMD EPYC, float32: benchmarks/results, and batches of 4 to 256 rows, models of d 64 to 1024."""
CPU_CALL, CPU_START = 0.9e-3, 9.0
"""A layer's call in a model of d 64; imports and all else before a job computes (benchmarks/shards.py)."""


def speed_of(device: str, dtype: str, threads: int) -> Speed:
    """What a device of GPUS, or `cpu` with that many threads, achieves with numbers of `dtype`."""
    if device == "cpu":
        scoring, generation, bandwidth = (threads * rate for rate in (CPU_SCORING, CPU_GENERATION, CPU_BANDWIDTH))
        of = partial(Rate, bandwidth=bandwidth, call=CPU_CALL, at_once=False)
        return Speed(of(scoring), of(generation), CPU_START)
    peak = GPUS[device]
    product = {"float32": peak.float32, "tf32": peak.tf32}.get(dtype, peak.bfloat16)
    rate = Rate(product * OF_PEAK, peak.bandwidth * OF_BANDWIDTH, GPU_CALL)
    return Speed(rate, rate, GPU_START)


def scoring_work(size: ModelSize, prompts: int, tokens: int, token_budget: int, width: int) -> Work:
    """Score every head for prompts of so many tokens each, with `width` bytes for a number."""
    shape = size.shape
    lengths = min(prompts, LENGTHS)
    of_layer = max(lengths, ceil(prompts * tokens * shape.heads / token_budget))
    plain = max(lengths, ceil(prompts * tokens / token_budget))
    return Work(
        prompts * scoring_operations(shape, [tokens]),
        scoring_bytes(shape, [tokens] * prompts, token_budget, width),
        plain * shape.layers + of_layer * shape.layers * (shape.layers + 1) // 2,
    )


def generation_work(
    size: ModelSize,
    prompts: int,
    tokens: int,
    first_layers: Sequence[int],
    samples: int,
    new_tokens: int,
    token_budget: int,
    width: int,
) -> Work:
    """Make `samples` completions of each prompt with each head set, told by the first layer that it ablates."""
    shape, sets = size.shape, len(first_layers)
    if sets == 1:  # nothing is shared with others: one whole pass
        operations = plain_pass(shape, tokens) + decoding(shape, tokens, new_tokens)
    else:
        operations = generation_operations(shape, [tokens], first_layers, new_tokens)
    operations += (samples - 1) * sets * decoding(shape, tokens, new_tokens)
    batches = generation_batches(prompts * sets * samples, tokens, new_tokens, token_budget)
    return Work(
        prompts * operations,
        generation_bytes(shape, [tokens] * prompts, sets * samples, new_tokens, token_budget, width),
        batches * shape.layers * (new_tokens + 1),
    )


def generation_batches(rows: int, tokens: int, new_tokens: int, token_budget: int) -> int:
    """Number of batches of `batches.padded` for rows of equal length."""
    return ceil(rows / max(1, token_budget // (tokens + new_tokens)))


def scoring_memory(size: ModelSize, tokens: int, token_budget: int, width: int) -> int:
    """Bytes on the device: the weights, and a batch of that budget with what layers and output make of it."""
    shape = size.shape
    states = 8 * shape.hidden + 3 * shape.attention + shape.matrices * shape.intermediate
    rows = max(1, token_budget // tokens)
    kept = token_budget * shape.hidden * shape.layers // max(1, shape.heads)
    return width * (size.parameters + max(tokens, token_budget) * states + kept) + 12 * rows * shape.vocabulary


def generation_memory(size: ModelSize, rows: int, tokens: int, new_tokens: int, token_budget: int, width: int) -> int:
    """Bytes on the device: the weights, and the keys and values of a batch, with the logits of its rows."""
    shape = size.shape
    of_batch = min(rows, max(1, token_budget // (tokens + new_tokens)))
    cache = of_batch * (tokens + new_tokens) * shape.layers * shape.keys_and_values
    states = of_batch * tokens * (8 * shape.hidden + 3 * shape.attention + shape.matrices * shape.intermediate)
    return width * (size.parameters + cache + states) + 12 * of_batch * shape.vocabulary
