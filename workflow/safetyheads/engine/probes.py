"""What `model_checks` tries on a loaded model: prompts of random tokens, and the passes over them that must agree.

Each function yields comparisons. What is compared are head outputs, or the states behind the final norm, which the
logits follow from: at each position the length of the difference of two vectors as a share of the length of one.

Lengths that are 1 more than a multiple of 32 are among them, because kernels work in blocks of so many positions, and
are known to fail at their edges.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.ablation import States, ablate, exchange
from safetyheads.engine.context import context_length
from safetyheads.engine.decoder import cache_argument, check_numbers, decoder, grid, input_device
from safetyheads.engine.positions import borders, relax, stretching_ropes
from safetyheads.engine.reference_attention import apart, compared
from safetyheads.engine.self_checks import CHECKED
from safetyheads.heads import Ablation, Head, HeadSet, Kind

log = logging.getLogger(__name__)

EDGE, LONGEST, SHORT = 33, 64, 8
"""Lengths in tokens: 1 more than a multiple of 32; the longest; that of what does not depend on it."""
LEAST = 1e-6
"""What ablating all heads of a layer changes at least: rounding changes less."""


class Compared(NamedTuple):
    """A comparison: over how many tokens, of what, and the differences at positions, or one that stands for them."""

    tokens: int
    what: str
    differences: Tensor


class Probe:
    """A model and the prompts that it is tried with: `tokens` drawn at random, as many as the model is made for."""

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int], seed: int) -> None:
        self.model, self.norm, self.stretching = model, decoder(model).norm, stretching_ropes(model)
        size = len(model.get_input_embeddings().weight)  # type: ignore[arg-type]
        self.tokens = torch.tensor([token for token in tokens if token < size])
        self.generator = torch.Generator().manual_seed(seed)
        limits = [context_length(model.config) or LONGEST, *(border.tokens for border in borders(model.config))]
        longest = max(2, min(LONGEST, *limits))
        self.edge = min(EDGE, longest)
        self.lengths = sorted({self.edge, longest if longest > self.edge else longest - 1})

    def draw(self, rows: int, length: int) -> Tensor:
        """Token ids (rows, length)."""
        places = torch.randint(len(self.tokens), (rows, length), generator=self.generator)
        return self.tokens[places].to(input_device(self.model))

    def states(self, ids: Tensor, **more: Any) -> Tensor:
        """What is behind the final norm, (B, T, d_model) in float32, of prompts of token ids (B, T)."""
        seen: list[Tensor] = []
        relax(self.stretching)
        hook = self.norm.register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            with torch.inference_mode():
                self.model(ids, **{"use_cache": False, "logits_to_keep": 1, **more})
        finally:
            hook.remove()
        if not more:  # with padding, what is there may be anything
            check_numbers(self.model, seen[-1])
        return seen[-1].float()  # of the last call: some models have the norm at the beginning, too


def of_no_heads(probe: Probe) -> Iterator[Compared]:
    """A plain row beside one whose layer is ablated, and the same rows outside of the block."""
    layers, heads = grid(probe.model)
    sets: list[HeadSet] = [(), tuple(Head(layers // 2, head) for head in range(heads))]
    ids = probe.draw(2, min(SHORT, probe.edge))
    plain = probe.states(ids)
    for kind in Kind:
        with ablate(probe.model, Ablation(kind), sets):
            found = apart(probe.states(ids)[0], plain[0])
        yield Compared(ids.shape[1], f"a plain row beside one with {kind.value} ablation", found)


def of_layers(probe: Probe) -> Iterator[Compared]:
    """A plain row and one for each layer, all of whose heads are ablated."""
    layers, heads = grid(probe.model)
    sets: list[HeadSet] = [(), *(tuple(Head(layer, head) for head in range(heads)) for layer in range(layers))]
    ids = probe.draw(1, min(SHORT, probe.edge)).expand(len(sets), -1)  # (1 + layers, T)
    with ablate(probe.model, CHECKED, sets):
        states = probe.states(ids)
    for layer, found in enumerate(apart(states[1:], states[:1]).amax(dim=1)):
        if not found <= LEAST or _writes(probe, layer, ids[:1]):
            yield Compared(ids.shape[1], f"layer {layer}", found)


def _writes(probe: Probe, layer: int, ids: Tensor) -> bool:
    """Whether the attention of a layer does anything in this model, seen without our ablation.

    Its output at each position is exchanged for the mean of all positions. That changes nothing where weights are zero.
    """

    def mean(_: nn.Module, __: Any, output: Any) -> Any:
        own = output[0] if isinstance(output, tuple) else output  # (B, T, d_model)
        mixed = own.mean(dim=1, keepdim=True).expand_as(own)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    def note(module: nn.Module, *states: Tensor) -> States:  # query (1, N, T, d), key and value (1, N_kv, T, d)
        attending.append(module)
        return states  # type: ignore[return-value]

    attending: list[nn.Module] = []
    with exchange(note):
        plain = probe.states(ids)
    hook = attending[layer].register_forward_hook(mean)
    try:
        return not apart(probe.states(ids), plain).max() <= LEAST
    finally:
        hook.remove()


def of_later_tokens(probe: Probe) -> Iterator[Compared]:
    """Two rows that differ in their last token."""
    for length in filter(lambda length: length > 1, probe.lengths):
        ids = probe.draw(1, length).repeat(2, 1)  # (2, T)
        others = probe.tokens[probe.tokens != ids[0, -1].cpu()]
        ids[1, -1] = others[len(others) // 2]
        states = probe.states(ids)[:, :-1]  # (2, T - 1, d_model)
        yield Compared(length, f"{length} tokens", apart(states[1], states[0]))


def of_kernels(probe: Probe) -> Iterator[Compared]:
    """Each layer's attention and the eager one of the family, on the same states."""
    for length in probe.lengths:
        relax(probe.stretching)
        for layer, found in enumerate(compared(probe.model, probe.draw(1, length))):
            yield Compared(length, f"layer {layer}, {length} tokens", found)


def of_padding(probe: Probe) -> Iterator[Compared]:
    """Prompts alone, and in a batch with other tokens as padding; then with their last token fed to a cache.

    Both the batch and, one token later, the cache are 1 more than a multiple of 32 wide.
    """
    width = probe.edge
    ids = probe.draw(3, width)  # (B, T)
    lengths = [width, max(2, 3 * width // 5), max(2, width // 5)]
    alone = [probe.states(row[-length:][None])[0] for row, length in zip(ids, lengths)]  # (length, d_model) each
    visible = torch.stack([torch.arange(width) >= width - length for length in lengths]).long().to(ids.device)
    positions = (visible.cumsum(dim=1) - 1).clamp_min(0)  # (B, T)
    found = probe.states(ids, attention_mask=visible, position_ids=positions)  # (B, T, d_model)
    for row, own, length in zip(found, alone, lengths):
        yield Compared(width, f"{length} tokens, padded to {width}", apart(row[-length:], own))
    try:
        cache = {cache_argument(probe.model): DynamicCache(config=probe.model.config), "use_cache": True}
        before = {"attention_mask": visible[:, :-1], "position_ids": positions[:, :-1]}
        probe.states(ids[:, :-1], **before, **cache)
        after = {"attention_mask": visible, "position_ids": positions[:, -1:]}
        found = probe.states(ids[:, -1:], **after, **cache)  # (B, 1, d_model)
    except Exception as error:  # scores need no cache, and a family without one may fail anywhere in its own code
        log.info("%s runs no token on a cache: %s: %s", type(probe.model).__name__, type(error).__name__, error)
        return
    last = torch.stack([own[-1] for own in alone])  # (B, d_model)
    yield Compared(width, f"the last token, on a cache that is padded to {width}", apart(found[:, 0], last))
