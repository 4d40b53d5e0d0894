"""What all prompts begin with, run once for each head set instead of once for each of its rows.

A chat template puts the same words before every query: a system prompt, the opening of the user's turn. Ablating a head
changes what they are in the layers above it, but alike for all prompts. So their keys and values are made once, and all
rows of a head set read them:

    whole passes                          with a shared prefix

    L02H00   s s s s | a a a              L02H00   s s s s          keys and values, kept for L02H00
    L02H00   s s s s | b b b                               | a a a  reads them
    L02H01   s s s s | a a a                               | b b b  reads them
    L02H01   s s s s | b b b              L02H01   s s s s          and so on

With a prefix of half of each prompt and many prompts, half of the work is gone.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.engine.positions import borders
from safetyheads.engine.prefix_cache import KeysValues, PrefixCache
from safetyheads.heads import Ablation, HeadSet

_WORTH = 4
"""A prefix of fewer tokens is not worth passes of its own."""


def shared_tokens(model: PreTrainedModel, prompts: Sequence[Sequence[int]], token_budget: int) -> list[int]:
    """The tokens that all prompts begin with; none if it is not worth it.

    It is not if these are few, if all heads of a layer with them do not fit into a batch of `token_budget` tokens, so
    that their keys and values need no more memory than a batch of generation does, or if they would be turned by other
    rotary frequencies than the whole prompts. At least one token of each prompt is left, because scores are about a
    prompt's last one. What is given depends on these arguments alone, and not on where a job runs.
    """
    if len(prompts) < 2 or borders(model.config):
        return []
    alike = takewhile(lambda at: len(set(at)) == 1, zip(*(ids[:-1] for ids in prompts)))
    tokens = [token for token, *_ in alike]
    return tokens if _WORTH <= len(tokens) <= token_budget // grid(model)[1] else []


class SharedPrefix:
    """A prefix of P tokens with a group of heads ablated, from which passes over the rest of the prompts go on."""

    def __init__(
        self,
        passes: PartialForward,
        tokens: Sequence[int],
        ablation: Ablation | None,
        group: HeadSet,
        *,
        layers: Collection[int],
    ) -> None:
        """Run the `tokens` with the `group` ablated, to be resumed at `layers`."""
        self.passes, self.ablation, made = passes, ablation, DynamicCache()
        ids = torch.tensor([list(tokens)], device=input_device(passes.model))  # (1, P)
        self.kept, _ = passes.keep(ids, ablation, group, made, layers=layers)
        self.own = _states(made)

    def of_sets(self, layer: int, head_sets: Sequence[HeadSet]) -> KeysValues:
        """Resume the prefix at `layer` for each of U head sets: keys and values in the layers above."""
        made = DynamicCache()
        if layer < len(self.passes.layers) - 1:
            self.passes.resume(self.kept, [0] * len(head_sets), layer, self.ablation, head_sets, made)
        return _states(made)

    def cache(self, above: KeysValues | None = None, of_row: Sequence[int] = ()) -> PrefixCache:
        """What stands before rows in which the group is ablated alone, or before rows of the head sets `of_row`.

        `above` is what `of_sets` gave for these head sets, and `of_row` has the place of each row's own among them.
        """
        return PrefixCache(self.own, above or {}, of_row)


def joined_states(pieces: Sequence[KeysValues]) -> KeysValues:
    """The pieces of what `of_sets` gives as one: layer by layer, so that little is there twice."""
    if len(pieces) == 1:
        return pieces[0]
    joined: KeysValues = {}
    for layer in list(pieces[0]):
        keys, values = zip(*(piece.pop(layer) for piece in pieces))
        joined[layer] = torch.cat(keys), torch.cat(values)
    return joined


def _states(cache: DynamicCache) -> KeysValues:
    """Keys and values of the layers that a pass has filled."""
    layers: list[Any] = cache.layers
    return {at: (layer.keys, layer.values) for at, layer in enumerate(layers) if layer.is_initialized}
