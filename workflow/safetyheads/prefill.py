"""The prompts of a batch, computed once for all rows that share them."""

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache

from safetyheads.ablation import Ablation
from safetyheads.cache import Filling
from safetyheads.heads import HeadSet
from safetyheads.partial_forward import PartialForward, Prompts


def prefill(
    passes: PartialForward,
    prompts: Sequence[tuple[int, ...]],
    head_sets: Sequence[HeadSet],
    ablation: Ablation | None,
    new_tokens: int,
) -> tuple[Tensor, DynamicCache]:
    """Run B prompts of token ids, each with its own heads ablated, padded on the left to the longest.

    Returns the logits of their last positions (B, vocabulary) and a cache of their keys and values with room for
    `new_tokens` more. A prompt is run once with nothing ablated, and its head sets resume from there, wherever that
    leaves out more layers than it costs.
    """
    model, layers = passes.model, len(passes.layers)
    filling = Filling(model, len(prompts), max(map(len, prompts)), new_tokens)
    units: dict[tuple[tuple[int, ...], HeadSet], list[int]] = {}  # samples of a prompt with the same heads
    for row, unit in enumerate(zip(prompts, head_sets)):
        units.setdefault(unit, []).append(row)
    first = {heads: min((head.layer for head in heads), default=layers) for heads in head_sets}
    left_out = dict.fromkeys(prompts, 0)
    for prompt, heads in units:
        left_out[prompt] += first[heads]

    alone = [unit for unit in units if left_out[unit[0]] < layers]
    if alone:
        cache = DynamicCache()
        ids = Prompts.of([prompt for prompt, _ in alone], filling.width, model.device)
        top = passes.whole(ids, ablation, [heads for _, heads in alone], cache)
        filling.take([units[unit] for unit in alone], top.logits, cache, range(layers))

    shared = [prompt for prompt, count in left_out.items() if count >= layers]
    if shared:
        plain = DynamicCache()
        kept = passes.keep(Prompts.of(shared, filling.width, model.device), ablation, (), plain)
        for layer in sorted({first[heads] for prompt, heads in units if left_out[prompt] >= layers}):
            resumed = [unit for unit in units if left_out[unit[0]] >= layers and first[unit[1]] == layer]
            rows, chosen = [units[unit] for unit in resumed], [shared.index(prompt) for prompt, _ in resumed]
            filling.take(rows, kept.top.logits, plain, range(min(layer + 1, layers)), chosen)
            if layer < layers:
                cache = DynamicCache()
                top = passes.resume(kept, chosen, layer, ablation, [heads for _, heads in resumed], cache)
                filling.take(rows, top.logits, cache, range(layer + 1, layers))
    return filling.logits, filling.cache()
