"""Attention heads and the kinds of ablation. `L02H26` is head 26 of layer 2; both are counted from 0."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from safetyheads.errors import SafetyHeadsError

_NAME = re.compile(r"L(\d+)H(\d+)")


class Head(NamedTuple):
    """One attention (query) head. Heads sort by layer, then by head."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer:02d}H{self.head:02d}"


HeadSet = tuple[Head, ...]

DEMO_GRID = (4, 8)
"""The demo model's number of layers, and of query heads in each."""


def parse_head(name: str) -> Head:
    """The head that a name such as `L02H26` stands for. Raises SafetyHeadsError for a text that is not such a name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise SafetyHeadsError(f"{name!r} is not the name of a head. Heads are written like L02H26 (layer 2, head 26).")
    return Head(int(match[1]), int(match[2]))


def all_heads(layers: int, heads: int) -> HeadSet:
    """Every head of a model with `layers` layers of `heads` query heads, in sorted order."""
    return tuple(Head(layer, head) for layer in range(layers) for head in range(heads))


def check_in_grid(chosen: Iterable[Head], layers: int, heads: int) -> None:
    """Raise SafetyHeadsError for the first head that a model of `layers` x `heads` does not have."""
    for head in chosen:
        if head.layer >= layers or head.head >= heads:
            raise SafetyHeadsError(
                f"Head {head} does not exist: the model has layers 0 to {layers - 1} "
                f"with heads 0 to {heads - 1} (L00H00 to {Head(layers - 1, heads - 1)})."
            )


class Kind(StrEnum):
    """What happens to an ablated head (Zhou et al., ICLR 2025).

    Head h has query states q_h and key states k_h, after rotary embedding, and the output o_h, before the output
    projection.
    """

    UNDIFFERENTIATED = "undifferentiated"
    """q_h is multiplied by epsilon, so that attention becomes uniform over the positions that the head sees (eq. 7)."""
    SCALING = "scaling"
    """o_h is multiplied by epsilon, so that the head adds next to nothing (eq. 8)."""
    MEAN_QUERY = "mean_query"
    """q_h is replaced by the mean of the layer's queries (section 5.3)."""
    MEAN_KEY = "mean_key"
    """k_h, as this query head sees it, is replaced by the mean of the layer's keys over query heads (section 5.3)."""
    MEAN_OUTPUT = "mean_output"
    """o_h is replaced by the mean of the layer's head outputs (appendix A)."""

    @property
    def has_epsilon(self) -> bool:
        """Whether this kind multiplies by an epsilon. Kinds that put a mean in place of something have none."""
        return self in (Kind.UNDIFFERENTIATED, Kind.SCALING)


@dataclass(frozen=True)
class Ablation:
    """A kind of ablation and its factor, epsilon, which only the kinds with `has_epsilon` use."""

    kind: Kind
    epsilon: float = 1e-5

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Ablation | None":
        """The ablation that `settings` of the configuration describe; None, the plain model, if they are empty.

        Raises ValueError for an unknown kind.
        """
        return cls(Kind(settings["kind"]), settings.get("epsilon", cls.epsilon)) if settings else None
