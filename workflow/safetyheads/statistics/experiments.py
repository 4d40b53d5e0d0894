"""The tables of experiments (`safetyheads.experiments`): one for each kind, made from a study's own results."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from safetyheads.heads import Head
from safetyheads.plans import parse_plan
from safetyheads.statistics.distribution import tail
from safetyheads.statistics.intervals import difference_interval, rate_interval
from safetyheads.statistics.overlap import (
    chance_of_shared,
    expected_jaccard,
    expected_overlap,
    jaccard,
    rank_biased_overlap,
    ranking,
)
from safetyheads.statistics.pairs import PLAN_KEYS

FIRST = 10
"""How many heads of highest score are compared (figure 5)."""

SCORES_OF = ["scores", "model", "dataset", "template", "ablation"]
"""The keys of the scores of one cell: `scores` is their name (`methods.Method.scores`)."""

RATES = [
    *(*PLAN_KEYS, "n", "asr", "low", "high", "delta", "delta_low", "delta_high"),
    *("coherent_asr", "coherent_low", "coherent_high", "degenerate", "refused"),
]
BESIDE = [
    *("control", "over_control", "over_control_low", "over_control_high", "p_control", "draws", "uniform"),
    *("harmless_kl", "over_refusal", "leaks", "selected_here"),
]
"""What `effects` adds: the controls, and what the same heads do on benign data sets."""


def rates_table(rates: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """A row for each plan: its rates and, where they were measured, its controls and the harmless side.

    `rates` and `effects` are those tables of the study's cells. `source` is the data set that heads were chosen on, and
    null for head sets. The draws of controls have no rows of their own: what they show is in `control` and `uniform`.
    Nor have the heads of a map.
    """
    plans = [parse_plan(str(name)) for name in rates["plan"]]
    own = rates[[not plan.paired for plan in plans]][RATES]
    chosen = [(plan.source or dataset) if plan.method else None for plan, dataset in zip(plans, rates["dataset"])]
    own.insert(PLAN_KEYS.index("plan") + 1, "source", pd.Series(chosen, rates.index)[own.index])
    return own.merge(effects[[*PLAN_KEYS, *BESIDE]], how="left", on=PLAN_KEYS, validate="one_to_one")


def parameters_table(
    table: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], head_sets: Mapping[str, int]
) -> pd.DataFrame:
    """The table of rates with `heads`, how many a plan ablates, and the `share` of the model's parameters that changes.

    `sizes` has for each model the parameters that one head's ablation changes, its slice of one projection (width x
    size of a head), and those of the whole model; `head_sets` the number of heads of each. Models whose size is not
    known have no share.
    """
    plans = [parse_plan(str(name)) for name in table["plan"]]
    heads = [plan.n if plan.n is not None else head_sets.get(plan.name, 0) for plan in plans]
    of_models = [sizes.get(str(model)) for model in table["model"]]
    shares = [n * size[0] / size[1] if size else None for n, size in zip(heads, of_models)]
    found = table.copy()
    at = list(found).index("n")
    found.insert(at, "share", pd.Series(shares, found.index, dtype="float64"))
    found.insert(at, "heads", heads)
    return found


UTILITY = ["model", "dataset", "template", "ablation", "plan", "task", "metric"]


def utility_table(items: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell, task and metric: accuracy with heads ablated, and its change from the plain model.

    `items` has the rows of the stage `utility` of all cells, the plain model's among them. `accuracy` has Wilson's
    interval, and `change`, which goes item by item, the paired score interval.
    """
    plain = items[items["plan"] == "none"].drop_duplicates(["model", "task", "metric", "item"])
    both = items.merge(
        plain[["model", "task", "metric", "item", "value"]],
        on=["model", "task", "metric", "item"],
        suffixes=("", "_plain"),
        validate="many_to_one",
    )
    rows = []
    for key, group in both.groupby(UTILITY, observed=True):
        values, before = group["value"].to_numpy(), group["value_plain"].to_numpy()
        low, high = rate_interval(values)
        row = dict(zip(UTILITY, key)) | {"n": len(values), "accuracy": values.mean(), "low": low, "high": high}
        row |= {"plain": before.mean(), "change": (values - before).mean()}
        if row["plan"] != "none":
            row["change_low"], row["change_high"] = difference_interval(values - before)
        rows.append(row)
    columns = [*UTILITY, "n", "accuracy", "low", "high", "plain", "change", "change_low", "change_high"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[len(UTILITY) + 1 :], "float64"))


def maps_table(maps: pd.DataFrame, by_head: pd.DataFrame) -> pd.DataFrame:
    """A row for each map: the head of highest ASR, what is to be expected by chance, and heads that survive Holm."""
    best = by_head.sort_values("effect_asr", ascending=False, kind="stable").groupby(PLAN_KEYS, observed=True).first()
    named = [str(Head(int(layer), int(head))) for layer, head in zip(best["layer"], best["head"])]
    table = maps.merge(best.assign(first=named)[["first"]], left_on=PLAN_KEYS, right_index=True, validate="one_to_one")
    ends = [
        f"{name}{end}" for end in ("_asr", "") for name in ("plain", "highest", "expected_highest", "p_value", "up")
    ]
    return table[[*PLAN_KEYS, "n", "n_heads", "needed", "first", *ends]]


def of_heads(tables: Mapping[str, pd.DataFrame]) -> dict[tuple[str, ...], "pd.Series[float]"]:
    """The score of each head (index: layer, head), by the keys `SCORES_OF` of each cell of scores.

    That of Ships is the mean over prompts, and that of a search its first step's, which scores each head by itself.
    """
    found = {}
    for name, table in tables.items():
        for key, rows in table.groupby(SCORES_OF[1:], observed=True) if len(table) else ():
            searched = "step" in rows and rows["step"].notna().any()
            first = rows[rows["step"] == 1] if searched else rows
            found[name, *map(str, key)] = first.groupby(["layer", "head"])["score"].mean().sort_index()
    return found


def overlap_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each two cells of scores that differ in one thing: in the model, the data set or the ablation.

    `shared` of the `FIRST` heads of highest score are the same, `jaccard` is that over all that any has, and `rbo` the
    rank-biased overlap over all heads. Beside them is what two random orders would have, and `p_value` is the chance
    that they share as many. Models of different shape are not compared. `tables` has the scores by their names.
    """
    rows = []
    for differ, one, other, scores in _pairs(of_heads(tables)):
        first, second = (ranking(of).tolist() for of in scores)
        heads, size = len(first), min(FIRST, len(first))
        shared = len({*first[:size]} & {*second[:size]})
        row: dict[str, Any] = dict(zip(SCORES_OF, one))
        row |= {"differ": differ, "other": dict(zip(SCORES_OF, other))[differ]}
        row |= {"heads": heads, "size": size, "shared": shared, "jaccard": jaccard(first[:size], second[:size])}
        row |= {"jaccard_by_chance": expected_jaccard(size, heads), "p_value": chance_of_shared(shared, size, heads)}
        row |= {"rbo": rank_biased_overlap(first, second), "rbo_by_chance": expected_overlap(heads)}
        rows.append(row)
    beside = ["heads", "size", "shared", "jaccard", "jaccard_by_chance", "p_value", "rbo", "rbo_by_chance"]
    return pd.DataFrame(rows, columns=[*SCORES_OF, "differ", "other", *beside])


def _pairs(
    found: Mapping[tuple[str, ...], "pd.Series[float]"],
) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...], tuple["pd.Series[float]", "pd.Series[float]"]]]:
    for one, other in combinations(sorted(found), 2):
        differ = [name for name, a, b in zip(SCORES_OF, one, other) if a != b]
        alike = found[one].index.equals(found[other].index)
        if alike and len(differ) == 1 and differ[0] in ("model", "dataset", "ablation"):
            yield differ[0], one, other, (found[one], found[other])


def distribution_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each cell of scores: quantiles over heads, the share of the highest 1 % and 10 %, and the tail index.

    `tables` has the scores by their names; those of searches are their first step's.
    """
    rows: list[dict[str, Any]] = []
    for key, scores in of_heads(tables).items():
        row = dict(zip(SCORES_OF, key)) | {"heads": len(scores), "mean": scores.mean()}
        row |= {
            name: scores.quantile(at) for name, at in (("median", 0.5), ("q90", 0.9), ("q99", 0.99), ("highest", 1))
        }
        ordered = scores.clip(lower=0).sort_values(ascending=False)
        for share in (0.01, 0.1):
            first = ordered.iloc[: max(1, round(share * len(ordered)))].sum()
            row[f"first_{share * 100:.0f}_percent"] = first / ordered.sum() if ordered.sum() > 0 else None
        found = tail(scores)
        row |= {"tail_index": found.exponent, "tail_low": found.low, "tail_high": found.high, "tail_heads": found.heads}
        rows.append(row)
    return pd.DataFrame(rows)
