"""The data that the page is made from: settings and tables. Reading files is left to the script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from safetyheads.demo.organisms import Organism, organism_of
from safetyheads.plans import Plan

Settings = Mapping[str, Mapping[str, Any]]
"""Settings by name, as a section of the configuration has them: `{"greedy": {"max_new_tokens": 128, ...}}`."""


TABLES = (
    "attacks",
    *("rates", "effects", "effects_by_category", "maps", "maps_by_head", "concentration", "stability", "noise"),
    *("calibration", "agreement", "paper_vs_ours"),
)
"""The tables of a study that the page shows; some studies lack some."""


def _empty() -> pd.DataFrame:
    return pd.DataFrame()


class Experiment(NamedTuple):
    """What was made of a study that is an experiment."""

    kind: str
    svg: str
    table: pd.DataFrame


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    A table has the columns of the artefacts of the same name and may be empty. `ships`, `sahara` and `datasets` hold
    the rows of all artefacts of their stage, one after another; of `datasets` only dataset, query_id and category are
    needed. Columns of names may be categorical. Settings that no study uses are not shown.
    """

    title: str
    studies: Mapping[str, Mapping[str, Sequence[str]]]
    """For each study, by name, its lists of names: models, datasets, templates, ablations, plans, decodings, judges."""
    models: Settings
    """The content of each model's `models/{model}.json`, by name. Demo models have `organism`, their kind,
    `planted`, names of heads, and may have `decoy`, the name of one more."""
    rates: pd.DataFrame
    checks: Settings = field(default_factory=dict)
    """The content of the file of each model's checks, by name."""
    effects: pd.DataFrame = field(default_factory=_empty)
    effects_by_category: pd.DataFrame = field(default_factory=_empty)
    maps: pd.DataFrame = field(default_factory=_empty)
    maps_by_head: pd.DataFrame = field(default_factory=_empty)
    concentration: pd.DataFrame = field(default_factory=_empty)
    stability: pd.DataFrame = field(default_factory=_empty)
    noise: pd.DataFrame = field(default_factory=_empty)
    attacks: pd.DataFrame = field(default_factory=_empty)
    calibration: pd.DataFrame = field(default_factory=_empty)
    agreement: pd.DataFrame = field(default_factory=_empty)
    paper_vs_ours: pd.DataFrame = field(default_factory=_empty)
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    """The experiments by the names of their studies. Where there are any, there is `paper_vs_ours`, too."""
    ships: pd.DataFrame = field(default_factory=_empty)
    sahara: pd.DataFrame = field(default_factory=_empty)
    scores: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """The rows of all scores of other methods, by their names (`Method.scores`)."""
    datasets: pd.DataFrame = field(default_factory=_empty)
    benign: Sequence[str] = ()
    """The names of data sets whose queries should be answered: there a high rate is good."""
    contrasts: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """For each model and data set on which heads are chosen by contrast: those whose scores are subtracted."""
    attribution: Mapping[str, Any] = field(default_factory=dict)
    """The settings of Sahara: steps, rank and representation."""
    templates: Settings = field(default_factory=dict)
    ablations: Settings = field(default_factory=dict)
    decodings: Settings = field(default_factory=dict)
    judges: Settings = field(default_factory=dict)
    head_sets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    """The record of rates.parquet. Its `made_from` has the records of all files behind it, each different one once."""
    page: Mapping[str, Any] = field(default_factory=dict)
    """`versions`, `commit` and `clean` of the page itself, as `record` has them of the rates."""
    mixed: Sequence[str] = ()
    """Sentences about cells that were made under other conditions than the plain model that they are compared with."""

    def names(self, key: str) -> list[str]:
        """The names that the studies list under `key` (`models`, `plans`, ...), in the studies' order, each once."""
        return list(dict.fromkeys(str(name) for study in self.studies.values() for name in study.get(key, ())))

    def measured(self, key: str) -> list[str]:
        """The names of `key` (`models`, `datasets`, ...) that occur in a table.

        Those that the studies list come first, in the studies' order. The others follow in alphabetical order.
        """
        column = key.removesuffix("s")
        tables = [table for table in (self.rates, self.ships, self.sahara, *self.scores.values()) if column in table]
        found = {str(name) for table in tables for name in table[column].unique()}
        listed = [name for name in self.names(key) if name in found]
        return listed + sorted(found.difference(listed))

    def record_of(self, path: str) -> Mapping[str, Any]:
        """The record of an artefact that the rates go back to, by its path under results/; empty if there is none."""
        made = (group["record"] for group in self.record.get("made_from", ()) if path in group["files"])
        return next(made, {})

    def scores_of(self, plan: Plan) -> pd.DataFrame:
        """The scores that choose the heads of a plan, of all cells; an empty table if none are among the data."""
        own = {"ships": self.ships, "sahara": self.sahara, **self.scores}
        return own.get(plan.scores or "", pd.DataFrame())

    def subtracted(self, keys: Mapping[str, str]) -> pd.DataFrame | None:
        """The Ships scores that a contrast subtracts from those of these keys; None if none are among the data."""
        other = self.contrasts.get((keys["model"], keys["dataset"]))
        found = cells(self.ships, **{**keys, **dict(zip(("model", "dataset"), other))}) if other else pd.DataFrame()
        return None if found.empty else found

    def planted(self, model: str) -> tuple[str, ...]:
        """The names of a demo model's planted heads; empty for other models."""
        return tuple(self.models.get(model, {}).get("planted") or ())

    def organism(self, model: str) -> Organism:
        """The kind of a demo model; files that do not name it are from before there were several."""
        return organism_of(self.models.get(model, {}).get("organism"), self.decoy(model))

    def decoy(self, model: str) -> str | None:
        """The name of a demo model's decoy, which breaks all text if it is ablated; None for models without one."""
        return self.models.get(model, {}).get("decoy")


def cells(table: pd.DataFrame, **keys: str) -> pd.DataFrame:
    """The rows of a table whose columns have these values: `cells(rates, plan="none")`. The table may be empty."""
    for key, value in keys.items():
        if table.empty:
            return table
        table = table[table[key] == value]
    return table


def groups(table: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of a table, grouped by the values of the columns `keys`. The table may be empty."""
    if table.empty:
        return {}
    made = table.groupby(list(keys), observed=True, sort=False)
    return {tuple(map(str, values)): rows for values, rows in made}
