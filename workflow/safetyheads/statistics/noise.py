"""The noise between batches: how often the plain model answers differently because it was computed in another batch."""

import pandas as pd

from safetyheads.plans import PLAIN
from safetyheads.statistics.pairs import names_own, need, plain_rows
from safetyheads.statistics.rates import PLAN_KEYS

COLUMNS = ["model", "judge", "n", "texts", "verdicts"]

_SHARED = ["model", "dataset", "template", "decoding", "query_id", "sample"]
_CELL = [key for key in PLAN_KEYS if key != "judge"]


def noise(verdicts: pd.DataFrame, completions: pd.DataFrame) -> pd.DataFrame:
    """For each model and judge, how many plain rows of other batches differ: the columns `COLUMNS`, sorted.

    `completions` has the columns of the keys but judge, and variant, query_id, sample, text and paired; `verdicts` has
    judge, harmful and outcome besides, but no text. Each ablated row that names the plain row of its own batch
    (`paired`) says how that row compares with the plain model's own cell, where it stood in another batch:

    - `n`: prompts and samples that are compared so.
    - `texts`: the share of ablated rows whose plain row has another text.
    - `verdicts`: the share of those whose plain row has another outcome, or is judged otherwise. An effect that is
      smaller than this may come from the batches alone.

    Models whose plans have no such rows are left out. In float32 both shares should be 0.
    """
    need(completions, [*_CELL, "variant", "query_id", "sample", "text", "paired"], "completions")
    need(verdicts, [*PLAN_KEYS, "variant", "query_id", "sample", "harmful", "outcome", "paired"], "verdicts")
    texts = _compared(completions, ["text"], [])
    judged = _compared(verdicts, ["harmful", "outcome"], ["judge"])
    differ = texts.groupby("model", observed=True)["differs"].mean().rename("texts")
    rows = judged.groupby(["model", "judge"], observed=True).agg(verdicts=("differs", "mean"))
    rows["n"] = judged.drop_duplicates([*_SHARED, "judge"]).groupby(["model", "judge"], observed=True).size()
    table = rows.reset_index().merge(differ.reset_index(), on="model")
    kinds = {"model": "str", "judge": "str", "n": "int64", "texts": "float64", "verdicts": "float64"}
    return table[COLUMNS].astype(kinds).sort_values(["model", "judge"], ignore_index=True)


def _compared(table: pd.DataFrame, values: list[str], more: list[str]) -> pd.DataFrame:
    """Ablated rows with a plain row of their own batch, and whether it differs from the plain cell's in `values`."""
    plain = table["ablation"] == PLAIN
    own = [*_CELL, *more, "query_id", "sample"]
    batches = table.loc[plain_rows(table), [*own, "variant", *values]].rename(columns={"variant": "paired"})
    rows = table.loc[~plain & ~plain_rows(table) & names_own(table), [*own, "paired"]].astype({"paired": "str"})
    rows = rows.merge(batches, on=[*own, "paired"])
    rows = rows.merge(table.loc[plain, [*_SHARED, *more, *values]], on=[*_SHARED, *more], suffixes=("", "_plain"))
    differs = pd.concat([rows[value] != rows[f"{value}_plain"] for value in values], axis=1).any(axis=1)
    return rows.assign(differs=differs)
