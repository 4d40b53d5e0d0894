"""Dose curves: what becomes of the answers as a method ablates more and more heads.

heads     0 (plain)   1     2     3
complied      0.00  0.40  0.70  0.55     the first number with at least half of the answers complied with is 2
degenerate    0.00  0.00  0.10  0.40     beyond it, text breaks
refused       1.00  0.60  0.20  0.05
"""

from collections.abc import Iterator

import pandas as pd

from safetyheads.methods import METHODS
from safetyheads.plans import PLAIN, parse_plan
from safetyheads.statistics.pairs import PLAIN_KEYS, PLAN_KEYS

CELL_KEYS = [key for key in PLAN_KEYS if key != "plan"]
"""The keys of a dose curve, besides its method and the data set that heads are chosen on."""

RATES = ("asr", "coherent_asr", "degenerate", "refused")
COLUMNS = [*CELL_KEYS, "method", "source", "n_heads", *RATES, "control"]

REACHED = 0.5
"""The rate from which on a number of heads is called enough."""


def doses(rates: pd.DataFrame) -> pd.DataFrame:
    """The points of all dose curves: a table with the columns `COLUMNS`, sorted by them.

    `rates` has the columns of rates.parquet. A curve has a point for each plan `METHOD-N` with the same method and
    `source`, the data set that heads are chosen on, and one with no heads, the plain model. `control` is the mean
    coherent ASR of the plan's matched draws, null where none were measured.
    """
    table = pd.DataFrame(_points(rates), columns=COLUMNS)
    kinds = dict.fromkeys([*CELL_KEYS, "method", "source"], "str") | dict.fromkeys([*RATES, "control"], "float64")
    return table.astype(kinds | {"n_heads": "int64"}).sort_values(
        [*CELL_KEYS, "method", "source", "n_heads"], ignore_index=True
    )


def _points(rates: pd.DataFrame) -> Iterator[dict[str, object]]:
    plain = rates[rates["ablation"] == PLAIN].groupby(PLAIN_KEYS, observed=True)[list(RATES)].first()
    started = set()
    ablated = rates[rates["ablation"] != PLAIN]
    control = ablated.groupby(PLAN_KEYS, observed=True)["coherent_asr"].mean()
    for row in ablated[ablated["plan"].str.match("|".join(METHODS))].to_dict("records"):
        plan = parse_plan(str(row["plan"]))
        if plan.kind not in METHODS:
            continue
        cell = {key: row[key] for key in CELL_KEYS}
        curve = {**cell, "method": plan.kind, "source": plan.source or str(row["dataset"])}
        if tuple(curve.values()) not in started:
            started.add(tuple(curve.values()))
            yield {**curve, "n_heads": 0, **plain.loc[tuple(row[key] for key in PLAIN_KEYS)].to_dict()}
        matched = tuple((row | {"plan": f"matched-{plan.name}"})[key] for key in PLAN_KEYS)
        beside = float(control[matched]) if matched in control.index else None
        yield {**curve, "n_heads": plan.n, **{name: row[name] for name in RATES}, "control": beside}


def enough(curve: pd.DataFrame, rate: str) -> int | None:
    """The smallest number of heads of a dose curve at which `rate` is at least `REACHED`; None if it never is.

    It is 0 where the plain model's own rate is.
    """
    reached = curve.loc[curve[rate] >= REACHED, "n_heads"]
    return int(reached.min()) if len(reached) else None
