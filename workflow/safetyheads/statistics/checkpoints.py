"""Two models of one shape side by side, such as one before and after tuning: what did the tuning change of its heads?

heads        0     1     2     3
before    0.00  0.10  0.55  0.60    coherent ASR: it takes 2 heads until half of the answers are complied with
after     0.00  0.00  0.10  0.20    not with 3 heads: refusal is spread over more of them, or lies elsewhere
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from safetyheads.methods import METHODS
from safetyheads.statistics.concentration import rank_correlation
from safetyheads.statistics.doses import CELL_KEYS, doses, enough
from safetyheads.statistics.experiments import of_heads

KEYS = [*(key for key in CELL_KEYS if key != "model"), "method", "source"]
"""The keys of what is compared: dose curves of two models that differ in nothing else."""
_OF_EACH = ("plain", "highest", "needed", "largest")
COLUMNS = ["before", "after", *KEYS, *(f"{of}_{model}" for of in _OF_EACH for model in ("before", "after"))]
COLUMNS += ["scores", "heads", "rank_correlation"]
WHOLE = [name for name in COLUMNS if name.startswith(("needed", "largest")) or name == "heads"]


def checkpoints_table(rates: pd.DataFrame, tables: Mapping[str, pd.DataFrame], models: Sequence[str]) -> pd.DataFrame:
    """A row for each two of `models`, of which the first is `before`, and each dose curve that both have.

    `rates` is as in `doses`, `tables` has the scores by their names. `plain` is the coherent ASR of the plain model,
    `highest` that with the number of heads for which it is highest, `needed` the smallest number with which it is at
    least 0.5 (null if with none, of which `largest` is the largest measured). `rank_correlation` is Spearman's, over
    the `heads` of the model, of the scores that the method goes by, before what it may subtract; null for models of
    other shapes.
    """
    curves = {tuple(map(str, key)): rows for key, rows in doses(rates).groupby(["model", *KEYS], observed=True)}
    of_cells = of_heads(tables)
    rows: list[dict[str, Any]] = []
    for before, after in combinations(models, 2):
        for key in sorted(
            {key[1:] for key in curves if key[0] == before} & {key[1:] for key in curves if key[0] == after}
        ):
            row: dict[str, Any] = {"before": before, "after": after} | dict(zip(KEYS, key))
            for which in ("before", "after"):
                curve = curves[row[which], *key]
                of_plain = curve.loc[curve["n_heads"] == 0, "coherent_asr"].iloc[0]
                values = (of_plain, curve["coherent_asr"].max(), enough(curve, "coherent_asr"), curve["n_heads"].max())
                row |= {f"{of}_{which}": value for of, value in zip(_OF_EACH, values)}
            name = METHODS[row["method"]].scores
            cells = [(name, model, row["source"], row["template"], row["ablation"]) for model in (before, after)]
            rows.append(row | {"scores": name} | _correlated(*(of_cells.get(cell) for cell in cells)))
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))


def _correlated(before: "pd.Series[float] | None", after: "pd.Series[float] | None") -> dict[str, Any]:
    if before is None or after is None or not before.index.equals(after.index):
        return {}
    return {"heads": len(before), "rank_correlation": rank_correlation(before, after)}
