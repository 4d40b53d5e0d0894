"""What the prompts of a sweep begin with, and what head sets make of it; nothing, where they do not begin alike."""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from safetyheads.engine.partial_forward import Shortcut
from safetyheads.engine.prefix_cache import KeysValues, PrefixCache
from safetyheads.engine.shared_prefix import SharedPrefix, joined_states
from safetyheads.heads import HeadSet

if TYPE_CHECKING:
    from safetyheads.attribution.scoring_passes import Sweep


class Beginning:
    """The tokens that all prompts of `sweep` begin with, run with a group ablated, and resumed for some head sets.

    Without such tokens, or for a model that does not allow it, nothing stands before the prompts, and `rest` is all of
    them.
    """

    def __init__(self, sweep: "Sweep", group: HeadSet, *, layers: Collection[int]) -> None:
        """Head sets will be resumed at one of `layers`. Below it, they ablate the same heads as the group."""
        self.sweep, self.group, self.layers = sweep, group, layers
        self._resumed: tuple[int, Sequence[HeadSet]] | None = None  # what `_above` is of
        self._above: KeysValues = {}

    @cached_property
    def _prefix(self) -> SharedPrefix | None:
        passes, tokens = self.sweep.passes, self.sweep.shared
        if not tokens or passes.shortcut is not Shortcut.PREFIX:
            return None
        return SharedPrefix(passes, tokens, self.sweep.ablation, self.group, layers=self.layers)

    def resume(self, layer: int, head_sets: Sequence[HeadSet]) -> None:
        """Resume at `layer` for each of the head sets, unless that was done last."""
        if self._prefix is None or self._resumed == (layer, head_sets):
            return
        prefix = self._prefix
        self._resumed, self._above = None, {}  # makes room
        self._above = joined_states(self.sweep.prefixes.of(lambda sets: prefix.of_sets(layer, sets), head_sets))
        self._resumed = layer, head_sets

    def cache(self, of_row: Sequence[int] | None = None) -> PrefixCache | None:
        """What stands before rows of the group, or before rows of the head sets resumed last, by their places there."""
        if self._prefix is None:
            return None
        return self._prefix.cache() if of_row is None else self._prefix.cache(self._above, of_row)

    def rest(self, prompts: Sequence[int]) -> Tensor:
        """The token ids (P, T) of prompts of one length, by their indices, behind what is run for itself."""
        return self.sweep.ids(prompts, after=len(self.sweep.shared) if self._prefix else 0)
