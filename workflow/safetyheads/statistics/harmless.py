"""What ablating the same heads does to answers to harmless queries.

Heads are never chosen on benign data sets. A plan is measured there as it is elsewhere, under the name of the data set
that its heads come from. So what is joined is not the plan's name, but the heads themselves.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from safetyheads.heads import Head
from safetyheads.statistics.pairs import PLAN_KEYS, Key, need

CELL = [key for key in PLAN_KEYS if key != "judge"]
"""The keys of a cell of completions."""

COLUMNS = [*CELL, "variant", "query_id", "heads", "first_kl"]
"""What is needed of completions."""

Heads = tuple[Head, ...]


def heads_of_cells(completions: pd.DataFrame) -> dict[Key, dict[str, Heads]]:
    """For each cell of completions, by its values of `CELL`, the heads that are ablated for each prompt."""
    need(completions, COLUMNS, "completions")
    once = completions.drop_duplicates([*CELL, "variant", "query_id"])
    return {
        tuple(map(str, key)): {str(query): _heads(heads) for query, heads in zip(cell["query_id"], cell["heads"])}
        for key, cell in once.groupby(CELL, observed=True, sort=False)
    }


def _heads(heads: Iterable[Any]) -> Heads:
    """Heads as they are in parquet (mappings of layer and head) or in Python, sorted."""
    return tuple(
        sorted(
            Head(**{key: int(at) for key, at in head.items()}) if isinstance(head, Mapping) else Head(*head)
            for head in heads
        )
    )


class Harmless:
    """Cells of benign data sets, by the heads that are ablated in them."""

    def __init__(
        self,
        completions: pd.DataFrame,
        heads: Mapping[Key, Mapping[str, Heads]],
        values: Mapping[Key, pd.DataFrame],
        benign: Collection[str],
    ) -> None:
        self.heads, self.values = heads, values
        rows = completions[completions["dataset"].isin(list(benign))]
        self.kl = {
            tuple(map(str, key)): cell.groupby("query_id", observed=True)["first_kl"].mean()
            for key, cell in rows.groupby(CELL, observed=True, sort=False)
        }
        self.cells: dict[tuple[Any, ...], list[Key]] = {}
        for cell in sorted(self.kl):
            self.cells.setdefault(self._joined(cell), []).append(cell)

    def of(self, cell: Key) -> tuple[float | None, float | None]:
        """The mean KL divergence (nats) and the change of the refused share on benign prompts, for a judged cell.

        Both are means over the prompts of all benign data sets where the same heads were ablated for every prompt. Null
        if there are none, or if the heads of the cell differ between prompts.
        """
        judge = dict(zip(PLAN_KEYS, cell))["judge"]
        own = tuple(value for key, value in zip(PLAN_KEYS, cell) if key != "judge")
        joined = self._joined(own)
        # Two plans may ablate the same heads on one data set: one of them says it.
        found = {other[CELL.index("dataset")]: other for other in self.cells.get(joined, [])} if joined[-1] else {}
        if not found:
            return None, None
        kl = pd.concat([self.kl[other] for other in found.values()])
        judged = [self.values[(*other, judge)] for other in found.values() if (*other, judge) in self.values]
        change = pd.concat([values["refused"] - values["plain_refused"] for values in judged]) if judged else None
        return _mean(kl), None if change is None else _mean(change)

    def _joined(self, cell: Key) -> tuple[Any, ...]:
        keys = dict(zip(CELL, cell))
        sets = set(self.heads.get(cell, {}).values())
        return (
            *(keys[key] for key in ("model", "template", "ablation", "decoding")),
            sets.pop() if len(sets) == 1 else None,
        )


def _mean(values: "pd.Series[float]") -> float | None:
    known = values.dropna()
    return float(known.mean()) if len(known) else None
