"""What the prompts of a sweep begin with, and what head sets make of it; nothing, where they do not begin alike."""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from safetyheads.engine.batches import chunks
from safetyheads.engine.partial_forward import Shortcut
from safetyheads.engine.prefix_cache import KeysValues, PrefixCache
from safetyheads.engine.shared_prefix import SharedPrefix, joined_states, shared_tokens
from safetyheads.heads import HeadSet

if TYPE_CHECKING:
    from safetyheads.attribution.scoring_passes import Sweep


class Beginning:
    """The tokens that all prompts of `sweep` begin with, run with a group ablated, and for some head sets at a time.

    Without such tokens, or for a model that does not take them apart, nothing stands before the prompts, and `rest` is
    all of them.
    """

    def __init__(self, sweep: "Sweep", group: HeadSet, *, layers: Collection[int]) -> None:
        """Head sets will be run from one of `layers` on. Below it, they ablate the same heads as the group."""
        self.sweep, self.group, self.layers = sweep, group, layers
        self._tokens = shared_tokens(sweep.passes.model, sweep.prompts)
        self._run: tuple[int, Sequence[HeadSet]] | None = None
        self._above: KeysValues = {}

    @property
    def sets_at_once(self) -> int:
        """How many head sets fill a batch with their prefixes; 0 if there is none."""
        return max(1, self.sweep.token_budget // len(self._tokens)) if self._tokens else 0

    @cached_property
    def _prefix(self) -> SharedPrefix | None:
        sweep = self.sweep
        sweep.check()
        if not self._tokens or sweep.passes.shortcut < Shortcut.PREFIX:
            return None
        return SharedPrefix(sweep.passes, self._tokens, sweep.ablation, self.group, layers=self.layers)

    def run(self, layer: int, head_sets: Sequence[HeadSet]) -> None:
        """Resume at `layer` for each of the head sets, unless that was done last."""
        if self._prefix is None or self._run == (layer, head_sets):
            return
        prefix, pieces = self._prefix, list[KeysValues]()
        for some in chunks(head_sets, self.sets_at_once):
            pieces += self.sweep.resumed.of(lambda sets: prefix.of_sets(layer, sets), some)
        self._run, self._above = (layer, head_sets), joined_states(pieces)

    def before(self, of_row: Sequence[int] | None = None) -> PrefixCache | None:
        """What stands before rows of the group, or before rows of the head sets that were run, by their places."""
        if self._prefix is None:
            return None
        return self._prefix.cache() if of_row is None else self._prefix.cache(self._above, of_row)

    def rest(self, prompts: Sequence[int]) -> Tensor:
        """The token ids (P, T) of prompts of one length, by their indices, behind what is run for itself."""
        return self.sweep.ids(prompts, after=len(self._tokens) if self._prefix else 0)
