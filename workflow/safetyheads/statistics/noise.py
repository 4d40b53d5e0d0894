"""The noise between batches: how often the plain model answers differently because it was computed in another batch."""

import pandas as pd

from safetyheads.plans import PLAIN, PLAIN_VARIANT
from safetyheads.statistics.pairs import COLUMNS as OF_VERDICTS
from safetyheads.statistics.pairs import PLAIN_CELL, PLAN_KEYS, names_own, need, plain_rows

COLUMNS = ["model", "judge", "n", "texts", "verdicts"]

_CELL = [key for key in PLAN_KEYS if key != "judge"]
_ASKED = ["query_id", "sample"]
OF_COMPLETIONS = [*_CELL, "variant", *_ASKED, "text"]
"""What is needed of completions, and only of those variants that match `PLAIN_ANSWERS`."""

PLAIN_ANSWERS = rf"{PLAIN_CELL['variant']}|{PLAIN_VARIANT}"
"""The variants that are the plain model's answers: of its own cell, and of the batches of other plans."""

_SHARED = ["model", "dataset", "template", "decoding", *_ASKED]


def noise(verdicts: pd.DataFrame, completions: pd.DataFrame) -> pd.DataFrame:
    """For each model and judge, how many plain rows of other batches differ: the columns `COLUMNS`, sorted.

    `verdicts` is as for `pairs.pairs`, and `completions` has the columns `OF_COMPLETIONS`. Each ablated row that names
    the plain row of its own batch (`paired`) says how that row compares with the plain model's own cell, where it stood
    in another batch:

    - `n`: prompts and samples that are compared so.
    - `texts`: the share of ablated rows whose plain row has another text.
    - `verdicts`: the share of those whose plain row has another outcome, or is judged otherwise. An effect that is
      smaller than this may come from the batches alone.

    Models whose plans have no such rows are left out. In float32 both shares should be 0.
    """
    need(completions, OF_COMPLETIONS, "completions")
    need(verdicts, OF_VERDICTS, "verdicts")
    ablated = verdicts[names_own(verdicts["paired"])]
    counts = ablated.groupby([*PLAN_KEYS, *_ASKED, "paired"], observed=True).size().rename("rows").reset_index()
    counts = counts.astype({"paired": "str"})
    texts = _differing(counts.drop_duplicates([*_CELL, *_ASKED, "paired"]), completions, ["text"], _CELL)
    judged = _differing(counts, verdicts, ["harmful", "outcome"], PLAN_KEYS)
    rows = pd.DataFrame({"verdicts": _share(judged, ["model", "judge"])})
    rows["n"] = judged.drop_duplicates([*_SHARED, "judge"]).groupby(["model", "judge"], observed=True).size()
    rows["texts"] = _share(texts, ["model"]).reindex(rows.index.get_level_values("model")).to_numpy()
    kinds = {"model": "str", "judge": "str", "n": "int64", "texts": "float64", "verdicts": "float64"}
    return rows.reset_index()[COLUMNS].astype(kinds).sort_values(["model", "judge"], ignore_index=True)


def _differing(counts: pd.DataFrame, table: pd.DataFrame, values: list[str], keys: list[str]) -> pd.DataFrame:
    """`counts`, and whether the plain row that `paired` names differs in `values` from the plain model's own cell."""
    shared = [*_SHARED, *(key for key in keys if key == "judge")]
    in_batch = table.loc[plain_rows(table), [*keys, *_ASKED, "variant", *values]].rename(columns={"variant": "paired"})
    own_cell = table.loc[table["ablation"] == PLAIN, [*shared, *values]]
    found = counts.merge(in_batch, on=[*keys, *_ASKED, "paired"])
    found = found.merge(own_cell, on=shared, suffixes=("", "_plain"))
    differs = pd.concat([found[value] != found[f"{value}_plain"] for value in values], axis=1).any(axis=1)
    return found.assign(differs=differs)


def _share(rows: pd.DataFrame, by: list[str]) -> "pd.Series[float]":
    """The share of ablated rows whose plain row differs."""
    sums = rows.assign(differing=rows["rows"] * rows["differs"]).groupby(by, observed=True)[["differing", "rows"]].sum()
    return sums["differing"] / sums["rows"]
