"""The least arithmetic and memory traffic that scoring and generation need, counted exactly for models like Llama.

Benchmarks compare the speed that was measured with what this minimum allows.

Operations: a multiply-add is 2. Projections, attention, the gated MLP and the output layer count. Norms, rotary
embedding, softmax, activation functions and the embedding do not. Attention is causal, so token t (from 1) sees t keys.
For each of them, a head of size d makes d multiply-adds for the score and d for the value.

Memory traffic: a weight matrix is read once for each batch that uses it, and a batch has as many tokens as the token
budget. A batch of scoring has candidates of one layer. The prompts of generation pass through the weights twice, once
plain and once with ablation. The inputs of layers that are kept are written and read once. The cache of keys and values
is written once and read in each step.
"""

from collections.abc import Sequence
from math import ceil

from safetyheads.costs.flops import Shape


def attention(shape: Shape) -> int:
    """The width of all query heads of a layer together."""
    return shape.heads * shape.keys_and_values // (2 * shape.kv_heads)


def after_attention(shape: Shape) -> int:
    """The number of weights in the output projection and the MLP of one layer: what comes after its attention."""
    return shape.layer - shape.hidden * (attention(shape) + shape.keys_and_values)


def output(shape: Shape) -> int:
    """The number of weights in the output layer."""
    return shape.hidden * shape.vocabulary


def full_pass(shape: Shape, tokens: int) -> int:
    """The operations of a pass over `tokens` that leaves nothing out: every layer, and the logits at every position."""
    return 2 * (tokens * shape.weights + shape.layers * attention(shape) * tokens * (tokens + 1))


def upper_layers(shape: Shape, tokens: int, count: int) -> int:
    """The operations of the last `count` layers over `tokens`, and of the logits at the last position.

    Only the last position's logits are needed. So the last layer makes keys and values for every position, but all else
    only for the last one. With all layers, this is a plain pass.
    """
    everywhere, seen = shape.hidden * shape.keys_and_values, attention(shape) * tokens
    whole = tokens * shape.layer + seen * (tokens + 1)
    last = tokens * everywhere + shape.layer - everywhere + 2 * seen
    return 2 * ((count - 1) * whole + last + output(shape)) if count else 2 * output(shape)


def plain_pass(shape: Shape, tokens: int) -> int:
    """Operations of a pass for the last position's logits."""
    return upper_layers(shape, tokens, shape.layers)


def ablated_pass(shape: Shape, tokens: int, layer: int) -> int:
    """The operations that scoring one head of `layer` adds to a plain pass over `tokens`.

    Queries, keys and values of the head's layer are those of the plain pass. The attention of this head is computed
    again, and everything after it.
    """
    above = shape.layers - 1 - layer
    needed, pairs = (tokens, tokens * (tokens + 1) // 2) if above else (1, tokens)
    at_layer = 2 * (needed * after_attention(shape) + 2 * attention(shape) // shape.heads * pairs)
    return at_layer + upper_layers(shape, tokens, above)


def visible(tokens: int, new_tokens: int) -> int:
    """How many positions all decoding steps together see, after a prompt of T = `tokens`.

    The first step sees T + 1 positions, the last one T + `new_tokens` - 1. The first new token needs no such step,
    because the pass over the prompt gives it.
    """
    return (new_tokens - 1) * (2 * tokens + new_tokens) // 2


def decoding(shape: Shape, tokens: int, new_tokens: int) -> int:
    """The operations of all decoding steps: those for the second to the last of `new_tokens`, after `tokens`."""
    seen = shape.layers * 2 * attention(shape) * visible(tokens, new_tokens)
    return 2 * ((new_tokens - 1) * shape.weights + seen)


def generation_operations(shape: Shape, lengths: Sequence[int], layers: Sequence[int], new_tokens: int) -> int:
    """The operations of generating `new_tokens` for each prompt, with one head of each of `layers` ablated in turn.

    `lengths` are the prompts' in tokens. A layer may be listed several times, for several heads.
    """
    return sum(
        plain_pass(shape, tokens)
        + sum(ablated_pass(shape, tokens, layer) + decoding(shape, tokens, new_tokens) for layer in layers)
        for tokens in lengths
    )


def scoring_operations(shape: Shape, lengths: Sequence[int]) -> int:
    """The operations of scoring every head for prompts of these lengths, which is generating one token with each."""
    return generation_operations(shape, lengths, list(range(shape.layers)) * shape.heads, new_tokens=1)


def scoring_bytes(shape: Shape, lengths: Sequence[int], token_budget: int, width: int) -> int:
    """The bytes that scoring every head moves, with `width` bytes for a number and batches of `token_budget` tokens."""
    of_layer, tokens = ceil(sum(lengths) * shape.heads / token_budget), sum(lengths)
    above = shape.layers * (after_attention(shape) + output(shape)) + sum(range(shape.layers)) * shape.layer
    weights = ceil(tokens / token_budget) * shape.weights + of_layer * above
    return width * (weights + 2 * shape.layers * tokens * shape.hidden)


def generation_bytes(
    shape: Shape, lengths: Sequence[int], head_sets: int, new_tokens: int, token_budget: int, width: int
) -> int:
    """The bytes that generating `new_tokens` for each prompt with each head set moves, with `width` bytes a number."""
    batches = ceil(head_sets * sum(tokens + new_tokens for tokens in lengths) / token_budget)
    cache = sum(tokens + new_tokens - 1 + visible(tokens, new_tokens) for tokens in lengths)
    of_layer = 2 * sum(lengths) * shape.hidden + head_sets * shape.keys_and_values * cache
    return width * (batches * (new_tokens + 1) * shape.weights + shape.layers * of_layer)
