"""What each prompt was answered with heads ablated, beside what the plain model answered in the same batch.

In low precision a model's answer depends a little on the batch it is computed in. So plans whose batches hold many sets
of heads also hold the plain row of each of their prompts: variants `plain`, `plain-1`, ... of that plan, which differ
only if batches do. The column `paired` of an ablated row names the plain one of its own batch. Rows of other plans have
none, and are compared with the plain model's own cell.
"""

from collections.abc import Sequence

import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.plans import PLAIN
from safetyheads.statistics.rates import PLAIN_KEYS, PLAN_KEYS

VALUES = ("complied", "asr", "refused", "degenerate")
"""What is known of a prompt: the share of its samples with that outcome; for `asr`, that the judge calls harmful."""

PLAIN_VARIANT = r"plain(-\d+)?"
"""The variants of a plan that are plain rows of its batches."""

Key = tuple[str, ...]
"""The values of some keys: of `PLAN_KEYS`, where nothing else is said."""


def plain_rows(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of verdicts or completions are plain rows within the batches of a plan."""
    return (table["ablation"] != PLAIN) & table["variant"].str.fullmatch(PLAIN_VARIANT)


def names_own(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows name the plain row of their own batch."""
    return table["paired"].astype("string").str.fullmatch(PLAIN_VARIANT).fillna(False).astype(bool)


def need(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise SafetyHeadsError if the table `name` lacks one of `columns`."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise SafetyHeadsError(f"The {name} lack the columns {', '.join(missing)}; found: {', '.join(table)}.")


def prompt_values(verdicts: pd.DataFrame) -> dict[Key, pd.DataFrame]:
    """For each cell with ablated heads, by its values of `PLAN_KEYS`: a table with a row for each variant and prompt.

    `verdicts` has the columns `PLAN_KEYS`, variant, query_id, sample, harmful (bool), outcome and paired, and must
    include the plain model's. The tables are indexed by variant and query_id. Their columns are `VALUES`, the same of
    the plain rows that they are paired with (`plain_complied`, ...), all means over samples, and samples, how many.

    Raises SafetyHeadsError if columns or the plain model are missing, and if a row names a plain one that is not there.
    """
    need(verdicts, [*PLAN_KEYS, "variant", "query_id", "sample", "harmful", "outcome", "paired"], "verdicts")
    table = verdicts.assign(
        complied=verdicts["outcome"] == "complied",
        asr=verdicts["harmful"],
        refused=verdicts["outcome"] == "refused",
        degenerate=verdicts["outcome"] == "degenerate",
    ).astype(dict.fromkeys(VALUES, "float64"))
    of_plain = table["ablation"] == PLAIN
    plain = {
        _key(key): cell.groupby("query_id", observed=True)[list(VALUES)].mean()
        for key, cell in table[of_plain].groupby(PLAIN_KEYS, observed=True, sort=False)
    }
    cells = table[~of_plain].groupby(PLAN_KEYS, observed=True, sort=False)
    return {_key(key): _paired(cell, plain, dict(zip(PLAN_KEYS, _key(key)))) for key, cell in cells}


def _key(key: Sequence[object]) -> Key:
    return tuple(map(str, key))


def _paired(cell: pd.DataFrame, plain: dict[Key, pd.DataFrame], keys: dict[str, str]) -> pd.DataFrame:
    names = {value: f"plain_{value}" for value in VALUES}
    within = plain_rows(cell)
    batches = cell.loc[within, ["query_id", "sample", "variant", *VALUES]].rename(columns={"variant": "paired"} | names)
    ablated = cell[~within]
    own = names_own(ablated)
    with_own = ablated[own].astype({"paired": "str"}).merge(batches, on=["query_id", "sample", "paired"], how="left")
    key = tuple(keys[name] for name in PLAIN_KEYS)
    if key not in plain and not own.all():
        raise SafetyHeadsError(
            f"The plain model's verdicts for {', '.join(map(' '.join, zip(PLAIN_KEYS, key)))} are missing (ablation "
            f"plain, plan none): ablation {keys['ablation']}, plan {keys['plan']} cannot be compared. Judge them too."
        )
    others = ablated[~own].join(plain[key].rename(columns=names), on="query_id") if not own.all() else ablated[~own]
    pairs = pd.concat([part for part in (with_own, others) if len(part)], ignore_index=True)
    alone = pairs[pairs["plain_asr"].isna()]
    if len(alone):
        first = alone.iloc[0]
        named = f"variant {first['paired']} of that plan" if own.any() else "the plain model's cell"
        raise SafetyHeadsError(
            f"Plan {keys['plan']} (model {keys['model']}, data set {keys['dataset']}), variant {first['variant']}: "
            f"{first['query_id']}, sample {first['sample']}, is to be compared with {named}, which has no verdict on "
            "it. Judge the same prompts in both."
        )
    grouped = pairs.groupby(["variant", "query_id"], observed=True)
    return grouped[[*VALUES, *names.values()]].mean().assign(samples=grouped.size())
