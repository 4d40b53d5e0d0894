"""Each number that the paper published beside what a study measured, its interval, and whether they agree.

The published numbers are in config/catalogue/published.csv (Zhou et al., ICLR 2025). A study may have measured one of
them in several cells, with another judge for example, or not at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from safetyheads.heads import Head
from safetyheads.plans import PLAIN, parse_plan

PUBLISHED = ["place", "quantity", "model", "dataset", "template", "ablation", "plan", "paper", "spread", "about"]
"""The columns of published.csv. Names are the catalogue's; empty where the paper does not say it, or means no one."""
OURS = ["our_model", "our_dataset", "our_template", "our_ablation", "decoding", "judge"]
"""The keys of a cell of ours."""
COLUMNS = [*PUBLISHED, *OURS, "n", "ours", "low", "high", "agreement", "why", "coherent"]
ROUNDED = 0.005
"""Half of the last digit of a published rate."""

RATE, CHANGE = ("asr", "low", "high", "coherent_asr"), ("delta", "delta_low", "delta_high", "coherent_change")
QUANTITIES = {"asr": RATE, "asr_at_least": RATE, "asr_change": CHANGE}
"""The columns with the value, its interval and what becomes of it among coherent answers; other quantities are no
rates."""

MEASURED = ["quantity", "plan", *OURS, "ours", "why"]
"""The columns of `measured`: what was measured of quantities that are no rates."""
FIRST_HEAD = Head(2, 26)
"""The head that the paper calls the most important one of Llama-2-7b-chat."""

Same = Mapping[str, Mapping[str, str]]
"""What a study's names mean in the paper's, by section: `same["templates"]["text"] == "simple"`. What the paper does
not have is missing."""


def paper_vs_ours(
    published: pd.DataFrame, rates: pd.DataFrame, same: Same, sizes: Mapping[str, int], measured: pd.DataFrame
) -> pd.DataFrame:
    """A row for each published number and each cell that measured it: a table with the columns `COLUMNS`.

    `published` has the columns `PUBLISHED`, all of text. `rates` is rates.parquet; of its rows only those count whose
    model, data set, ablation and plan the paper has, too. `same` has the sections models, datasets, templates,
    ablations, decodings and judges. `sizes` is the number of queries of the paper's data sets. `measured` is what the
    function of this name says of all else.

    - `ours`, `low`, `high`: the measured value and its 95 % interval. Where the paper has a mean over data sets, so has
      `ours`: the squared distances from the rates to their bounds add up to those of the mean (Donner and Zou,
      Statistical Methods in Medical Research 21, 2012).
    - `agreement`: `inside` if the published number, which is rounded, lies in the interval, and for `asr_at_least` also
      if it lies below; `outside`; `not comparable`, and `why`; `not run`.
    - `coherent`: the same of answers with the outcome `complied` alone, which are no broken text.
    """
    cells = _cells(rates, same)
    rows: list[dict[str, Any]] = []
    for one in published.fillna("").to_dict("records"):
        found = _rates(one, cells, same, sizes) if one["quantity"] in QUANTITIES else _others(one, measured, same)
        rows += [one | ours for ours in found] or [one | {"agreement": "not run"}]
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    for name in ("paper", "spread", "n", "ours", "low", "high", "coherent"):
        numbers = pd.to_numeric(table[name].astype("object").mask(table[name] == ""))
        table[name] = numbers.astype("Int64" if name == "n" else "float64")
    return table


def measured(
    rates: pd.DataFrame,
    by_head: pd.DataFrame,
    hours: pd.DataFrame,
    of_heads: Mapping[str, Sequence[int]],
    same: Same,
    sizes: Mapping[str, int],
) -> pd.DataFrame:
    """What was measured of quantities that are no rates: a table with the columns `MEASURED`.

    - `parameters`: the share of a model's parameters that a plan changes. `of_heads` has, for each model whose size is
      known, the parameters of a head's slice of one projection and of the whole model.
    - `head_rank`: the place of `FIRST_HEAD` among all heads, by the ASR without each alone. Equally high ones share the
      last of their places, so that a map of equal rates has no first head. `by_head` is maps_by_head.parquet, and may
      be empty.
    - `gpu_hours`: `hours` has the columns of `jobs.hours`; of a plan or a search it says how long it took.

    `why` says what makes it another thing than the paper's, if anything does. `rates`, `same` and `sizes` are as in
    `paper_vs_ours`.
    """
    rows: list[dict[str, Any]] = []
    for model, name, ablation in sorted(set(zip(rates["model"], rates["plan"], rates["ablation"]))):
        plan = parse_plan(str(name))
        if model in of_heads and plan.method and plan.n and not plan.paired:
            row = {"quantity": "parameters", "plan": name, "our_model": model, "our_ablation": ablation}
            rows.append(row | {"ours": plan.n * of_heads[model][0] / of_heads[model][1]})
    queries = rates.groupby("dataset")["n"].max().to_dict()
    single = by_head[by_head["plan"] == "single"] if len(by_head) else by_head
    keys = [name.removeprefix("our_") for name in OURS]
    for key, heads in single.groupby(keys, observed=True) if len(single) else ():
        ranks = heads.set_index(["layer", "head"])["effect_asr"].rank(method="max", ascending=False)
        if FIRST_HEAD in ranks.index:
            row = dict(zip(OURS, map(str, key))) | {"quantity": "head_rank", "plan": "single"}
            why = [*_other_queries(row, queries, same, sizes), *_other(row, "simple", same)]
            rows.append(row | {"ours": ranks[FIRST_HEAD], "why": "; ".join(why)})
    for job in hours[hours["hours"].notna()].to_dict("records"):
        row = {f"our_{key}": job[key] for key in keys[:4]} | {"quantity": "gpu_hours", "plan": job["work"]}
        why = [] if all("A100" in name for name in job["device"].split(", ")) else [f"on {job['device']}"]
        why += _other_queries(row, queries, same, sizes)
        why += ["other sampling"] if job["decoding"] and job["decoding"] not in same["decodings"] else []
        rows.append(row | {"decoding": job["decoding"], "ours": job["hours"], "why": "; ".join(why)})
    return pd.DataFrame(rows, columns=MEASURED).fillna({name: "" for name in MEASURED if name != "ours"})


def _other_queries(
    cell: Mapping[str, Any], queries: Mapping[str, int], same: Same, sizes: Mapping[str, int]
) -> list[str]:
    """What makes the queries of a cell others than the paper's; `queries` is how many each of our data sets has."""
    dataset = same["datasets"].get(cell["our_dataset"])
    if dataset is None:
        return ["other data set"]
    return [] if queries.get(cell["our_dataset"]) == sizes[dataset] else ["not all queries"]


def _other(cell: Mapping[str, Any], template: str, same: Same) -> list[str]:
    """What makes the rest of a cell another thing than the paper's, with that template."""
    why = ["other template"] if same["templates"].get(cell["our_template"], "") != template else []
    why += ["other sampling"] if cell["decoding"] not in same["decodings"] else []
    return why + (["other judge"] if cell["judge"] not in same["judges"] else [])


def _cells(rates: pd.DataFrame, same: Same) -> pd.DataFrame:
    """The rates of plans that choose one set of heads for a prompt, with what their names mean to the paper."""
    table = rates[rates["variant"] == rates["plan"]].copy()
    plain = ["model", "dataset", "template", "decoding", "judge"]
    before = table[table["plan"] == "none"].set_index(plain)["coherent_asr"]
    of_plain = before.reindex(pd.MultiIndex.from_frame(table[plain])).to_numpy()
    table["coherent_change"] = table["coherent_asr"].to_numpy() - of_plain
    for key in ("model", "dataset", "template", "ablation"):
        table[f"our_{key}"] = table[key].astype(str)
        known = {**same[f"{key}s"], PLAIN: PLAIN}
        table[key] = [known.get(name, "") for name in table[f"our_{key}"]]
    return table[(table["model"] != "") & (table["dataset"] != "")]


def _rates(
    one: Mapping[str, Any], cells: pd.DataFrame, same: Same, sizes: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """What was measured of a published rate, for each of our templates, decodings and judges."""
    datasets = one["dataset"].split()
    found = cells[
        (cells[["model", "ablation", "plan"]] == [one[key] for key in ("model", "ablation", "plan")]).all(axis=1)
    ]
    found = found[found["dataset"].isin(datasets)] if datasets else found
    mean_of = [key for key in OURS if key != "our_dataset"] if len(datasets) > 1 else OURS
    value, low, high, coherent = QUANTITIES[one["quantity"]]
    for _, part in found.groupby(mean_of, observed=True):
        ours, first = part[value].mean(), part.iloc[0]
        bounds = [np.sqrt(((part[value] - part[bound]) ** 2).sum()) / len(part) for bound in (low, high)]
        why = [f"without {name}" for name in datasets if name not in set(part["dataset"])]
        why += _other(first, one["template"], same)
        why += ["not all queries"] if (part["n"] != part["dataset"].map(sizes)).any() else []
        row = {key: first[key] for key in OURS} | {"our_dataset": " ".join(sorted(part["our_dataset"]))}
        row |= {"ours": ours, "low": ours - bounds[0], "high": ours + bounds[1], "n": part["n"].sum()}
        yield row | {"coherent": part[coherent].mean(), "why": "; ".join(why), "agreement": _agreement(one, row, why)}


def _agreement(one: Mapping[str, Any], row: Mapping[str, Any], why: list[str]) -> str:
    if why:
        return "not comparable"
    above = one["quantity"] != "asr_at_least" and row["low"] > float(one["paper"]) + ROUNDED
    return "outside" if above or row["high"] < float(one["paper"]) - ROUNDED else "inside"


def _others(one: Mapping[str, Any], measured: pd.DataFrame, same: Same) -> Iterator[dict[str, Any]]:
    """What was measured of a published number that is no rate. Numbers agree if they are equal as rounded as the
    paper's; other methods than the paper's own are never measured."""
    for ours in measured.to_dict("records"):
        if (ours["quantity"], ours["plan"]) != (one["quantity"], one["plan"]) or not one["plan"]:
            continue
        if same["models"].get(ours["our_model"], "") != one["model"]:
            continue
        if one["ablation"] and same["ablations"].get(ours["our_ablation"], "") != one["ablation"]:
            continue
        near = _rounded(ours["ours"], one["paper"])
        agreement = "not comparable" if ours["why"] else "inside" if near else "outside"
        yield {key: ours[key] for key in (*OURS, "ours", "why")} | {"agreement": agreement}


def _rounded(ours: float, paper: str) -> bool:
    """Whether a number is the published one, rounded to as many digits after the first that is not 0."""
    digits = len(str(paper).replace(".", "").lstrip("0").rstrip("0")) or 1
    return float(f"{ours:.{digits - 1}e}") == float(paper)
