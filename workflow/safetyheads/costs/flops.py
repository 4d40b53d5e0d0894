"""The least arithmetic and memory traffic that scoring and generation need, counted exactly for Llama's shape.

Operations are 2 per multiply-add. Counted: projections, attention, gated MLP, output layer. Not counted: norms, rotary
embedding, softmax, activation functions, embedding lookup, scores. With T tokens, D hidden, A = heads x head size,
KV = key/value heads x head size, F of the MLP (3 D F is 2 D F where it has no gate), V vocabulary, L layers, N heads,
multiply-adds are:

    whole layer          T (D (A + 2 KV) + A D + 3 D F) + A T (T + 1)      causal: query t sees t keys, twice A each
    last layer           T D 2 KV + D A + A D + 3 D F + 2 A T              keys and values everywhere, the rest once
    logits               D V                                               of one position
    plain pass           (L - 1) whole layers + last layer + logits
    head of layer l      at l: A T (T + 1) / N + T (A D + 3 D F), its projections being those of the plain pass;
                         then L - 2 - l whole layers + last layer + logits
    head of layer L - 1  2 A T / N + A D + 3 D F + logits
    decoding, S visible  L (D (A + 2 KV) + A D + 3 D F + 2 A S) + D V

Scoring is a plain pass for each prompt and a head's pass for each head. Generation of G tokens is the same for each
head set (l is its ablated layer), then G - 1 decoding steps with S = T + 1, ..., T + G - 1 for each row.

Bytes: each weight matrix once for every batch, or decoding step of a batch, that uses it. A batch has at most as many
tokens as the token budget; one of scoring has heads of one layer; generation's prefill passes the weights twice (plain,
ablated). Kept layer inputs are written and read once. The cache is written once, and read once for each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Shape:
    """A decoder's dimensions."""

    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    kv_heads: int
    head_dim: int | None = None
    """Width of one head; by default hidden / heads."""
    matrices: int = 3
    """Of the MLP: 3 where it is gated, else 2."""

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.head_dim or self.hidden // self.heads

    @property
    def attention(self) -> int:
        """Width of all query heads together: A."""
        return self.heads * self.head_size

    @property
    def keys_and_values(self) -> int:
        """Numbers that one position leaves in the cache of one layer: 2 KV."""
        return 2 * self.kv_heads * self.head_size

    @property
    def after_attention(self) -> int:
        """Weights of output projection and MLP of one layer."""
        return self.hidden * (self.attention + self.matrices * self.intermediate)

    @property
    def layer(self) -> int:
        """Weights of one layer, norms left out."""
        return self.hidden * (self.attention + self.keys_and_values) + self.after_attention

    @property
    def output(self) -> int:
        """Weights of the output layer."""
        return self.hidden * self.vocabulary

    @property
    def weights(self) -> int:
        """Weights of all matrix products."""
        return self.layers * self.layer + self.output


def whole_layer(shape: Shape, tokens: int) -> int:
    """Operations of a layer at all positions."""
    return 2 * (tokens * shape.layer + shape.attention * tokens * (tokens + 1))


def last_layer(shape: Shape, tokens: int) -> int:
    """Operations of a layer of which the last position alone is needed."""
    once = shape.layer - shape.hidden * shape.keys_and_values  # query and output projection, MLP
    return 2 * (tokens * shape.hidden * shape.keys_and_values + once + 2 * shape.attention * tokens)


def full_pass(shape: Shape, tokens: int) -> int:
    """Operations of a pass that leaves nothing out: every layer and the logits at every position."""
    return shape.layers * whole_layer(shape, tokens) + 2 * tokens * shape.output


def plain_pass(shape: Shape, tokens: int) -> int:
    """Operations of a pass for the last position's logits."""
    return (shape.layers - 1) * whole_layer(shape, tokens) + last_layer(shape, tokens) + 2 * shape.output


def ablated_pass(shape: Shape, tokens: int, layer: int) -> int:
    """Operations that one ablated head of `layer` adds to the plain pass over the same prompt."""
    if layer == shape.layers - 1:
        return 2 * (2 * shape.head_size * tokens + shape.after_attention + shape.output)
    at_layer = 2 * (shape.head_size * tokens * (tokens + 1) + tokens * shape.after_attention)
    above = (shape.layers - 2 - layer) * whole_layer(shape, tokens) + last_layer(shape, tokens)
    return at_layer + above + 2 * shape.output


def visible(tokens: int, new_tokens: int) -> int:
    """Positions that the decoding steps after a prompt of `tokens` see, all steps together: T + 1, ..., T + G - 1."""
    steps = new_tokens - 1
    return steps * tokens + steps * (steps + 1) // 2


def decoding(shape: Shape, tokens: int, new_tokens: int) -> int:
    """Operations of the tokens that follow the first new one, up to `new_tokens`, after a prompt of `tokens`."""
    weights = (new_tokens - 1) * (shape.layers * shape.layer + shape.output)
    return 2 * (weights + shape.layers * 2 * shape.attention * visible(tokens, new_tokens))


def scoring_operations(shape: Shape, lengths: Sequence[int]) -> int:
    """Operations of scoring every head for prompts of these lengths."""
    return sum(
        plain_pass(shape, tokens) + shape.heads * sum(ablated_pass(shape, tokens, at) for at in range(shape.layers))
        for tokens in lengths
    )


def generation_operations(shape: Shape, lengths: Sequence[int], layers: Sequence[int], new_tokens: int) -> int:
    """Operations of `new_tokens` for each prompt with each head of these layers ablated on its own."""
    return sum(
        plain_pass(shape, tokens)
        + sum(ablated_pass(shape, tokens, layer) for layer in layers)
        + len(layers) * decoding(shape, tokens, new_tokens)
        for tokens in lengths
    )


def scoring_bytes(shape: Shape, lengths: Sequence[int], token_budget: int, width: int) -> int:
    """Bytes that scoring every head moves, with `width` bytes for a number."""
    tokens = sum(lengths)
    of_layer = ceil(tokens * shape.heads / token_budget)
    weights = ceil(tokens / token_budget) * shape.weights + of_layer * sum(
        shape.after_attention + (shape.layers - 1 - layer) * shape.layer + shape.output for layer in range(shape.layers)
    )
    return width * (weights + 2 * shape.layers * tokens * shape.hidden)


def generation_bytes(
    shape: Shape, lengths: Sequence[int], head_sets: int, new_tokens: int, token_budget: int, width: int
) -> int:
    """Bytes that `new_tokens` for each prompt with each head set move, with `width` bytes for a number."""
    batches = ceil(head_sets * sum(tokens + new_tokens for tokens in lengths) / token_budget)
    weights = batches * (2 + new_tokens - 1) * shape.weights
    kept = 2 * shape.layers * sum(lengths) * shape.hidden
    written = sum(tokens + new_tokens - 1 for tokens in lengths)
    read = sum(visible(tokens, new_tokens) for tokens in lengths)
    cache = head_sets * shape.layers * shape.keys_and_values * (written + read)
    return width * (weights + kept + cache)
