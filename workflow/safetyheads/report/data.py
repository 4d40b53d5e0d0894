"""What the page is made from: settings and tables, no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

Settings = Mapping[str, Mapping[str, Any]]
"""Settings by name, as the config has them: `{"greedy": {"max_new_tokens": 128, ...}}`."""


def _empty() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows.

    The tables have the columns of the artefacts of the same names and may be empty. Rows of `ships` and `sahara` are
    those of all their artefacts, one after another; `datasets` needs dataset, query_id and category only. Their columns
    of names may be categorical. What is in the settings but in no study is not shown.
    """

    title: str
    studies: Mapping[str, Mapping[str, Sequence[str]]]
    """Study -> key of the config (models, datasets, templates, ablations, plans, decodings, judges) -> names."""
    models: Settings
    """Model -> content of `models/{model}.json`; `planted` (two names of heads) makes it a demo model."""
    rates: pd.DataFrame
    ships: pd.DataFrame = field(default_factory=_empty)
    sahara: pd.DataFrame = field(default_factory=_empty)
    datasets: pd.DataFrame = field(default_factory=_empty)
    attribution: Mapping[str, Any] = field(default_factory=dict)
    """steps, rank, representation."""
    templates: Settings = field(default_factory=dict)
    ablations: Settings = field(default_factory=dict)
    decodings: Settings = field(default_factory=dict)
    judges: Settings = field(default_factory=dict)
    head_sets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)
    """That of rates.parquet, with `made_from`: the records of all files behind it, each different one once."""
    mixed: Sequence[str] = ()
    """Comparisons of cells that were made under different conditions, in words."""

    def names(self, key: str) -> list[str]:
        """Names that the studies list under `key` (`models`, `plans`, ...), in their order."""
        return list(dict.fromkeys(str(name) for study in self.studies.values() for name in study.get(key, ())))

    def measured(self, key: str) -> list[str]:
        """Names of `key` (`models`, `datasets`, `templates`, ...) in some table: those of the studies come first."""
        column = key.removesuffix("s")
        tables = [table for table in (self.rates, self.ships, self.sahara) if column in table]
        found = {str(name) for table in tables for name in table[column].unique()}
        listed = [name for name in self.names(key) if name in found]
        return listed + sorted(found.difference(listed))

    def planted(self, model: str) -> tuple[str, ...]:
        """Names of a demo model's planted heads, else nothing."""
        return tuple(self.models.get(model, {}).get("planted") or ())


def cells(table: pd.DataFrame, **keys: str) -> pd.DataFrame:
    """The rows of a table, which may be empty, whose columns have these values."""
    for key, value in keys.items():
        if table.empty:
            return table
        table = table[table[key] == value]
    return table


def groups(table: pd.DataFrame, keys: Sequence[str]) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of a table, which may be empty, by the values of `keys`."""
    if table.empty:
        return {}
    made = table.groupby(list(keys), observed=True, sort=False)
    return {tuple(map(str, values)): rows for values, rows in made}
