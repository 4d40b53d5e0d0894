"""The least arithmetic and memory traffic that scoring and generation need, counted exactly for Llama's shape.

Benchmarks compare what was achieved with this minimum. A multiply-add is 2 operations. Projections, attention, the
gated MLP and the output layer count; norms, rotary embedding, softmax, activation functions and the embedding do not.
Attention is causal: token t sees t keys, each of which costs a head twice its size, for the score and for the value.

A weight matrix moves once for each batch that uses it. A batch has as many tokens as the token budget. One of scoring
has heads of one layer; the prompts of generation pass the weights twice, plain and ablated. Kept inputs of layers are
written and read once; the cache is written once, and read in each step.
"""

from collections.abc import Sequence
from math import ceil

from safetyheads.costs.flops import Shape


def attention(shape: Shape) -> int:
    """Width of all query heads together."""
    return shape.heads * shape.keys_and_values // (2 * shape.kv_heads)


def after_attention(shape: Shape) -> int:
    """Weights of output projection and MLP of one layer."""
    return shape.layer - shape.hidden * (attention(shape) + shape.keys_and_values)


def output(shape: Shape) -> int:
    """Weights of the output layer."""
    return shape.hidden * shape.vocabulary


def full_pass(shape: Shape, tokens: int) -> int:
    """Operations of a pass that leaves nothing out: every layer and the logits at every position."""
    return 2 * (tokens * shape.weights + shape.layers * attention(shape) * tokens * (tokens + 1))


def upper_layers(shape: Shape, tokens: int, count: int) -> int:
    """Operations of the last `count` layers and the last position's logits.

    The last layer makes keys and values for every position, and all else for the last one.
    """
    everywhere, seen = shape.hidden * shape.keys_and_values, attention(shape) * tokens
    whole = tokens * shape.layer + seen * (tokens + 1)
    last = tokens * everywhere + shape.layer - everywhere + 2 * seen
    return 2 * ((count - 1) * whole + last + output(shape)) if count else 2 * output(shape)


def plain_pass(shape: Shape, tokens: int) -> int:
    """Operations of a pass for the last position's logits."""
    return upper_layers(shape, tokens, shape.layers)


def ablated_pass(shape: Shape, tokens: int, layer: int) -> int:
    """Operations that an ablated head of `layer` adds to the plain pass, whose projections it uses."""
    above = shape.layers - 1 - layer
    needed, pairs = (tokens, tokens * (tokens + 1) // 2) if above else (1, tokens)
    at_layer = 2 * (needed * after_attention(shape) + 2 * attention(shape) // shape.heads * pairs)
    return at_layer + upper_layers(shape, tokens, above)


def visible(tokens: int, new_tokens: int) -> int:
    """Positions that all decoding steps after a prompt of `tokens` see: T + 1, ..., T + `new_tokens` - 1."""
    return (new_tokens - 1) * (2 * tokens + new_tokens) // 2


def decoding(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Operations of the tokens that follow the first new one, up to `new_tokens`, after a prompt of `tokens`."""
    seen = shape.layers * 2 * attention(shape) * visible(tokens, new_tokens)
    return 2 * ((new_tokens - 1) * shape.weights + seen)


def generation_operations(shape: Shape, lengths: Sequence[int], layers: Sequence[int], new_tokens: int) -> int:
    """Operations of `new_tokens` for each prompt with each head of these layers ablated on its own."""
    return sum(
        plain_pass(shape, tokens)
        + sum(ablated_pass(shape, tokens, layer) + decoding(shape, tokens, new_tokens) for layer in layers)
        for tokens in lengths
    )


def scoring_operations(shape: Shape, lengths: Sequence[int]) -> int:
    """Operations of scoring every head for prompts of these lengths: nothing follows the first new token."""
    return generation_operations(shape, lengths, list(range(shape.layers)) * shape.heads, new_tokens=1)


def scoring_bytes(shape: Shape, lengths: Sequence[int], token_budget: int, width: int) -> int:
    """Bytes that scoring every head moves, with `width` bytes for a number."""
    of_layer, tokens = ceil(sum(lengths) * shape.heads / token_budget), sum(lengths)
    above = shape.layers * (after_attention(shape) + output(shape)) + sum(range(shape.layers)) * shape.layer
    weights = ceil(tokens / token_budget) * shape.weights + of_layer * above
    return width * (weights + 2 * shape.layers * tokens * shape.hidden)


def generation_bytes(
    shape: Shape, lengths: Sequence[int], head_sets: int, new_tokens: int, token_budget: int, width: int
) -> int:
    """Bytes that `new_tokens` for each prompt with each head set move, with `width` bytes for a number."""
    batches = ceil(head_sets * sum(tokens + new_tokens for tokens in lengths) / token_budget)
    cache = sum(tokens + new_tokens - 1 + visible(tokens, new_tokens) for tokens in lengths)
    of_layer = 2 * sum(lengths) * shape.hidden + head_sets * shape.keys_and_values * cache
    return width * (batches * (new_tokens + 1) * shape.weights + shape.layers * of_layer)
