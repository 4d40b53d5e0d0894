"""The prompts of a batch, computed once for all rows that share them."""

from collections.abc import Sequence

from torch import Tensor
from transformers import DynamicCache

from safetyheads.ablation import Ablation
from safetyheads.cache import Filling
from safetyheads.heads import HeadSet
from safetyheads.partial_forward import PartialForward, Prompts

Unit = tuple[tuple[int, ...], HeadSet]
"""What rows may share: a prompt and the heads ablated in it. Samples are many rows of one unit."""


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
    width, layers, device = max(map(len, prompts)), len(passes.layers), passes.model.device
    rows: dict[Unit, list[int]] = {}
    for row, unit in enumerate(zip(prompts, head_sets)):
        rows.setdefault(unit, []).append(row)
    first = {heads: min((head.layer for head in heads), default=layers) for heads in head_sets}  # layer ablated
    left_out = dict.fromkeys(prompts, 0)
    for prompt, heads in rows:
        left_out[prompt] += first[heads]
    ablated = {prompt for prompt, heads in rows if heads}
    shared = [prompt for prompt, count in left_out.items() if count >= layers and prompt in ablated]
    alone = [unit for unit in rows if unit[0] not in shared]

    filling = Filling(passes.model, len(prompts), width, new_tokens)
    if alone:
        ids, sets = Prompts.of([prompt for prompt, _ in alone], width, device), [heads for _, heads in alone]
        at = filling.places([rows[unit] for unit in alone], [layers] * len(prompts))
        filling.take(at, passes.whole(ids, ablation, sets, filling.into(at)).logits)
    if shared:
        ids, index = Prompts.of(shared, width, device), {prompt: at for at, prompt in enumerate(shared)}
        members = [[row for row, prompt in enumerate(prompts) if prompt == one] for one in shared]
        at = filling.places(members, [first[heads] for heads in head_sets])
        kept = passes.keep(ids, ablation, (), filling.into(at))
        filling.take(at, kept.top.logits)
        resumed = [unit for unit in rows if unit[0] in index and unit[1]]
        for layer in sorted({first[heads] for _, heads in resumed}):
            units = [unit for unit in resumed if first[unit[1]] == layer]
            at = filling.places([rows[unit] for unit in units], [layers] * len(prompts))
            chosen, sets = [index[prompt] for prompt, _ in units], [heads for _, heads in units]
            filling.take(at, passes.resume(kept, chosen, layer, ablation, sets, filling.into(at)).logits)
    return filling.logits, filling.cache()
