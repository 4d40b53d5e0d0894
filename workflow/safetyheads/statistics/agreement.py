"""How judges agree with each other on the same completions, by what became of the answers.

Where judges differ is as telling as how often: one may call all broken text harmful, which another does not.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from safetyheads.plans import PLAIN
from safetyheads.statistics.kappa import kappa
from safetyheads.statistics.pairs import need, plain_rows

OF_VERDICTS = ["model", "ablation", "variant", "query_id", "sample", "harmful", "outcome"]
"""What is needed of the verdicts of a cell."""

COUNTS = ("both_harmful", "only_first", "only_second", "neither")
COLUMNS = ["model", "condition", "first", "second", "outcome", "n", *COUNTS, "agreement", "kappa"]

ALL = "all"
"""The outcome of the rows about all answers."""


def agreement(cells: Iterable[Mapping[str, pd.DataFrame]]) -> pd.DataFrame:
    """How pairs of judges agree: the columns `COLUMNS`, a row for each model, condition, pair and outcome, sorted.

    Each of `cells` has the verdicts of one cell by the name of the judge, with the columns `OF_VERDICTS`. They are
    taken one by one, so that not all need to be in memory. The condition is `plain` for the plain model and
    `ablated` for all else. Plain rows within the batches of a plan are left out: they repeat the plain model's answers.

    `first` and `second` are judges in alphabetical order. The outcome is that of the first judge; the rows with `all`
    are about all answers. `n`: answers that both judged; `both_harmful`, ...: how many of them; `agreement`: the share
    on which they agree; `kappa`: Cohen's, null where it is undefined.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for cell in cells:
        for first, second in combinations(sorted(cell), 2):
            found.update(_of_pair(first, cell[first], second, cell[second]))
    rows = []
    for key in sorted({key[:-1] for key in found}):
        counts = {name: found[(*key, name)] for name in COUNTS}
        n = sum(counts.values())
        row = {**dict(zip(COLUMNS, key)), "n": n, **counts, "kappa": kappa(*counts.values())}
        rows.append(row | {"agreement": (counts["both_harmful"] + counts["neither"]) / n})
    kinds = dict.fromkeys(COLUMNS[:5], "str") | dict.fromkeys(("n", *COUNTS), "int64")
    return pd.DataFrame(rows, columns=COLUMNS).astype(kinds | {"agreement": "float64", "kappa": "float64"})


def _of_pair(first: str, one: pd.DataFrame, second: str, other: pd.DataFrame) -> Counter[tuple[str, ...]]:
    """The counts of one cell by (model, condition, first, second, outcome, name of the count)."""
    for name, table in ((first, one), (second, other)):
        need(table, OF_VERDICTS, f"verdicts of {name}")
    keys = ["variant", "query_id", "sample"]
    one = one[~plain_rows(one)].reset_index(drop=True)
    theirs = pd.MultiIndex.from_frame(other[keys]).get_indexer(pd.MultiIndex.from_frame(one[keys]))
    one, theirs = one[theirs >= 0], theirs[theirs >= 0]
    if one.empty:
        return Counter()
    a, b = one["harmful"].to_numpy(dtype=bool), other["harmful"].to_numpy(dtype=bool)[theirs]
    number = 2 * (~a).astype(np.int64) + (~b).astype(np.int64)  # the place in COUNTS
    code, names = pd.factorize(one["outcome"])
    table = np.bincount(code * len(COUNTS) + number, minlength=len(names) * len(COUNTS)).reshape(-1, len(COUNTS))
    condition = "plain" if one["ablation"].iloc[0] == PLAIN else "ablated"
    counts: Counter[tuple[str, ...]] = Counter()
    for outcome, row in zip((*map(str, names), ALL), (*table, table.sum(axis=0))):
        for name, count in zip(COUNTS, row):
            counts[str(one["model"].iloc[0]), condition, first, second, outcome, name] += int(count)
    return counts
