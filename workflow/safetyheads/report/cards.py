"""What a section of the page consists of: cards with figures, sentences and tables."""

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from safetyheads.report.effects import EffectsSection
from safetyheads.report.tables import Table

Kind = (
    Literal["ships", "shift", "sahara", "methods", "scores", "attack"]
    | Literal["by_plan", "by_n", "single", "outcomes", "strip", "doses", "noise"]
)


@dataclass(frozen=True)
class Card:
    """A figure with a title, a sentence on what it shows, and perhaps a table.

    `kind` chooses the explanation of how to read it, which the page's template has.
    """

    kind: Kind
    title: str
    svg: Markup
    summary: str
    table: Table | None = None


@dataclass(frozen=True)
class SettingSection:
    """The effects, the figures and the table of rates for one template, decoding and judge."""

    anchor: str
    title: str
    effects: EffectsSection | None
    cards: list[Card]
    rates: Table


@dataclass(frozen=True)
class DatasetSection:
    """What was scored and measured for one model on one data set. `anchor` is the id that links lead to."""

    anchor: str
    name: str
    ships: list[Card]
    sahara: list[Card]
    scores: list[Card]
    attacks: list[Card]
    settings: list[SettingSection]


@dataclass(frozen=True)
class ModelSection:
    """What was scored and measured for one model, and the noise between its batches where it was measured."""

    anchor: str
    name: str
    noise: list[Card]
    datasets: list[DatasetSection]
