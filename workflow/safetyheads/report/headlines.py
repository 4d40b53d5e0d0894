"""The headline for each model and data set: what the strongest measured ablation of few heads does to the refusals."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from safetyheads.chosen_heads import sahara_group, ships_best, top_heads
from safetyheads.errors import SafetyHeadsError
from safetyheads.plans import Plan, parse_plan
from safetyheads.report.data import ReportData, cells, groups
from safetyheads.report.figures import best_single
from safetyheads.report.figures.drawing import percent

LEVEL = 0.05
"""A p-value below this, after correction, is beyond what chance explains."""
LARGE = 0.2
"""A rise of the ASR by at least this much is called large."""

_SETTING = ("template", "decoding", "judge")


@dataclass(frozen=True)
class Headline:
    """The finding for one model on one data set: the plain model's ASR, and that of the strongest plan."""

    model: str
    dataset: str
    setting: str
    n: int
    plain: float
    answer: str
    """The finding, in a sentence."""
    plan: str = ""
    """The strongest plan. If there is none to choose from, this and the fields below keep their defaults."""
    ablation: str = ""
    asr: float = np.nan
    heads: str = ""
    """The heads that were ablated, in words."""
    count: int = 0
    """The number of heads that are ablated at a time."""
    total: int = 0
    """The number of heads that the model has; 0 if that is not known."""
    control: str = ""
    """The ASR with random heads ablated, in words."""


@dataclass(frozen=True)
class _Tried:
    plan: Plan
    row: pd.Series
    count: int
    p_value: float


def headlines(data: ReportData) -> list[Headline]:
    """One headline for each model and data set that has rates of the plain model, in the studies' order.

    A headline is about one template, decoding and judge: the first ones that were measured. Among their plans it takes
    the one with the highest ASR, under any ablation; of equal ones, the one with fewest heads. Only plans whose heads
    were searched count (ships, sahara, and the best head of single), or the head sets of the configuration if there are
    none of these. The best of many plans looks good by chance, so its p-value is multiplied by the number of plans
    (Bonferroni). Raises SafetyHeadsError for the name of a plan that is malformed.
    """
    made = []
    for model in data.measured("models"):
        for dataset in data.measured("datasets"):
            rates = cells(data.rates, model=model, dataset=dataset)
            for key in _SETTING:
                used = [name for name in data.measured(f"{key}s") if len(cells(rates, **{key: name}))]
                rates = cells(rates, **{key: used[0]}) if used else rates
            plain = cells(rates, plan="none")
            if len(plain):
                made.append(_headline(data, rates, plain.iloc[0]))
    return made


def _headline(data: ReportData, rates: pd.DataFrame, plain: pd.Series) -> Headline:
    start = Headline(
        model=str(plain["model"]),
        dataset=str(plain["dataset"]),
        setting=", ".join(f"{key} {plain[key]}" for key in _SETTING),
        n=int(plain["n"]),
        plain=float(plain["asr"]),
        answer="No heads were ablated here."
        if set(rates["plan"]) == {"none"}
        else "Only random heads were ablated here.",
    )
    cell = groups(rates, ("ablation", "plan")).values()
    every = [attempt for rows in cell if (attempt := _tried(rows, data.head_sets)) is not None]
    tried = [attempt for attempt in every if attempt.plan.kind != "head_set"] or every
    if not tried:
        return start
    best = min(tried, key=lambda attempt: (-attempt.row["asr"], attempt.count))
    model = data.models.get(start.model, {})
    control = _control(cells(rates, ablation=str(best.row["ablation"])))
    return replace(
        start,
        answer=_answer(start.plain, best, len(tried), max(control.values(), default=np.nan)),
        plan=best.plan.name,
        ablation=str(best.row["ablation"]),
        asr=float(best.row["asr"]),
        heads=_heads(data, best),
        count=best.count,
        total=int(model.get("layers", 0)) * int(model.get("heads", 0)),
        control=_in_words(control),
    )


def _tried(rows: pd.DataFrame, head_sets: Mapping[str, Sequence[str]]) -> _Tried | None:
    """The row of one plan and ablation that a headline may choose; None for plans that it does not consider."""
    plan = parse_plan(str(rows["plan"].iloc[0]))
    if plan.kind == "single":
        best = best_single(rows).iloc[0]
        return _Tried(plan, best, 1, float(best["p_adjusted"]))
    if plan.kind in ("ships", "sahara", "top") and plan.n is not None:
        return _Tried(plan, rows.iloc[0], plan.n, float(rows["p_value"].iloc[0]))
    if plan.kind == "head_set":
        return _Tried(plan, rows.iloc[0], len(head_sets.get(plan.name, ())), float(rows["p_value"].iloc[0]))
    return None


def _control(rates: pd.DataFrame) -> dict[int, float]:
    """For each number of random heads, the mean ASR over the draws."""
    return {
        plan.n or 0: float(rows["asr"].mean())
        for (name,), rows in groups(rates, ("plan",)).items()
        if (plan := parse_plan(name)).kind == "random"
    }


def _in_words(control: dict[int, float]) -> str:
    if not control:
        return ""
    counts, rates = sorted(control), sorted(control.values())
    if len(counts) == 1:
        return f"{counts[0]} random {'head' if counts == [1] else 'heads'}: {percent(rates[0])}"
    return f"{counts[0]} to {counts[-1]} random heads: {percent(rates[0])} to {percent(rates[-1])}"


def _answer(plain: float, best: _Tried, tried: int, control: float) -> str:
    rise = best.row["asr"] - plain
    if plain >= 0.5:
        return "Most of these requests are answered as it is: there are few refusals to lose."
    if not (rise > 0 and best.p_value * tried < LEVEL):
        return "None of the heads chosen raised the rate beyond what chance explains."
    if rise < LARGE:
        return "Without these heads the rate is reliably higher, but not by much."
    if np.isnan(control):
        return "Without these heads, requests that were refused are answered; how random heads do was not measured."
    if best.row["asr"] - control < LARGE:
        return "The rate rises, but random heads do nearly as much: this is not the work of particular heads."
    return "The refusals hang on few heads: without them, requests that were refused are answered."


def _heads(data: ReportData, best: _Tried) -> str:
    """The heads that were ablated, in words; empty where the scores that tell them are not among the data."""
    keys = {key: str(best.row[key]) for key in ("model", "dataset", "template", "ablation")}
    if best.plan.kind == "single":
        return str(best.row["variant"])
    if best.plan.kind == "head_set":
        return ", ".join(data.head_sets.get(best.plan.name, ()))
    if best.plan.kind in ("sahara", "top"):
        table, of_all = (data.sahara, sahara_group) if best.plan.kind == "sahara" else (data.ships, top_heads)
        scores = cells(table, **keys | {"dataset": best.plan.source or keys["dataset"]})
        try:
            return ", ".join(map(str, of_all(scores, best.count))) if len(scores) else ""
        except SafetyHeadsError:
            return ""
    scores = cells(data.ships, **keys)
    if scores.empty:
        return ""
    of_prompt = ships_best(scores, best.count)
    often = Counter(head for heads in of_prompt.values() for head in heads)
    top = sorted(often.items(), key=lambda item: (-item[1], item[0]))[:3]
    return "each prompt's own, most often " + ", ".join(
        f"{head} ({percent(times / len(of_prompt))} of prompts)" for head, times in top
    )
