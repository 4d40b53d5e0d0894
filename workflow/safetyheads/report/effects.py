"""The table of effects of one model, data set, template, decoding and judge, and what may be read from each row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import pandas as pd

from safetyheads.chosen_heads import filled_in
from safetyheads.plans import parse_plan
from safetyheads.report.caveats import Caveat, caveats, draws_as_far, interval, number, points
from safetyheads.report.data import ReportData, cells
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import Table, corrected_words, p_value

_SHORTS = 2
"""Caveats of a row that the table names; the sentences under it are all."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """The sentences on one row. `anchor` is the id that the row links to."""

    anchor: str
    title: str
    caveats: list[Caveat]


@dataclass(frozen=True)
class EffectsSection:
    """The table of effects, and a reading for each of its rows."""

    table: Table
    readings: list[Reading]


def effects_section(data: ReportData, rates: pd.DataFrame, anchor: str) -> EffectsSection | None:
    """The effects of the setting that `rates` has the rows of, in the order of its plans; None if there are none."""
    keys = {key: str(rates[key].iloc[0]) for key in ("model", "dataset", "template", "decoding", "judge")}
    effects = cells(data.effects, **keys)
    if effects.empty:
        return None
    place = {
        (str(ablation), str(plan)): at for at, (ablation, plan) in enumerate(zip(rates["ablation"], rates["plan"]))
    }
    rows = sorted(
        effects.to_dict("records"), key=lambda row: place.get((str(row["ablation"]), str(row["plan"])), len(place))
    )
    readings = [
        Reading(f"{anchor}-effect-{at}", f"{row['plan']}, {row['ablation']}", row_caveats(data, row, rates))
        for at, row in enumerate(rows, start=1)
    ]
    return EffectsSection(_table(keys["dataset"], rows, readings), readings)


def row_caveats(data: ReportData, row: Row, rates: pd.DataFrame) -> list[Caveat]:
    """The caveats of a row of effects, with what the noise and `rates`, the rows of the same setting, say besides."""
    return [
        *_filled_in(data, row),
        *caveats(
            row,
            noise=_only(cells(data.noise, model=str(row["model"]), judge=str(row["judge"])), "verdicts"),
            plain_broken=_only(cells(rates, plan="none"), "degenerate"),
            benign=str(row["dataset"]) in data.benign,
        ),
    ]


def _filled_in(data: ReportData, row: Row) -> list[Caveat]:
    """A caveat where a plan asks for more heads than its method names."""
    plan = parse_plan(str(row["plan"])).group
    keys = {key: str(row[key]) for key in ("model", "template", "ablation")}
    keys["dataset"] = plan.source or str(row["dataset"])
    scores, less = cells(data.scores_of(plan), **keys), data.subtracted(keys) if plan.contrasted else None
    if scores.empty or (plan.contrasted and less is None):
        return []
    heads = filled_in(plan, scores, less)
    if not heads:
        return []
    names = ", ".join(map(str, heads))
    words = (
        f"{plan.kind} names {(plan.n or 0) - len(heads)} heads only: {names} has no score above 0, and is there as "
        f"{plan.n} heads were asked for. Ask for fewer."
    )
    return [Caveat("filled in", f"{names} filled in", words)]


def control_words(row: Row) -> str:
    """How far the draws of a row's control go, for the figure; empty if it has none."""
    found = _as_far(row)
    if found is None:
        return ""
    as_far, draws = found
    return (
        f"{as_far} of {draws} draws as far: p {p_value((1 + as_far) / (1 + draws))}, least {p_value(1 / (1 + draws))}"
    )


def control_summary(rows: Mapping[str, Row]) -> str:
    """Which plans no draw of their control reaches, and how many draws reach the others, from their rows by name."""
    known = {plan: found for plan, row in rows.items() if (found := _as_far(row)) is not None}
    alone = [plan for plan, (as_far, _) in known.items() if not as_far]
    reached = [f"{plan} ({as_far} of {draws})" for plan, (as_far, draws) in known.items() if as_far]
    words = [f"No draw goes as far as {', '.join(alone)}."] if alone else []
    return " ".join([*words, f"Draws that go as far: {', '.join(reached)}."] if reached else words)


def _as_far(row: Row) -> tuple[int, int] | None:
    """How many draws of a row's control go at least as far, and how many there are; None if it has no control."""
    p, draws = number(row, "p_control"), number(row, "draws")
    return (draws_as_far(p, int(draws)), int(draws)) if isfinite(p) and draws > 0 else None


def _only(table: pd.DataFrame, column: str) -> float:
    return number(table.iloc[0].to_dict(), column) if len(table) and column in table else nan


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "ablation": lambda row: str(row["ablation"]),
    "n": lambda row: str(int(row["n"])),
    "plain": lambda row: _share(row, "plain"),
    "ablated": lambda row: _share(row, "ablated"),
    "effect (points)": lambda row: _change(row, "effect"),
    "p (Holm)": lambda row: p_value(number(row, "p_adjusted")),
    "control": lambda row: _share(row, "control"),
    "over control (points)": lambda row: _change(row, "over_control"),
    "p control": lambda row: _p_control(row),
    "random heads": lambda row: _share(row, "uniform"),
    "broken": lambda row: _share(row, "degenerate"),
    "harmless KL (nats)": lambda row: "" if (kl := _known(row, "harmless_kl")) is None else f"{kl:.2g}",
    "over-refusal (points)": lambda row: "" if (change := _known(row, "over_refusal")) is None else points(change),
    "corrected ASR": lambda row: corrected_words(row),
    "corrected effect (points)": lambda row: _change(row, "corrected_effect"),
    "leaks": lambda row: _leaks(row),
}
"""The columns of the table and how each is written. Those in which no row has a value are left out."""


def _table(dataset: str, rows: list[dict[str, Any]], readings: list[Reading]) -> Table:
    written = {name: [write(row) for row in rows] for name, write in _COLUMNS.items()}
    if len(set(written["ablation"])) == 1:  # which the headings of the figures name
        del written["ablation"]
    written = {name: column for name, column in written.items() if any(column)}
    shorts = ["; ".join(caveat.short for caveat in reading.caveats[:_SHORTS]) for reading in readings]
    plans = [str(row["plan"]) for row in rows]
    note = (
        "Shares of prompts that are answered: the judge calls the answer harmful, and it is neither broken nor "
        "unfinished. In brackets the 95 % interval. All numbers, those of the ASR, of refusals and of categories "
        "too, are in effects.parquet and effects_by_category.parquet, beside the folder of this page."
    )
    return Table(
        f"Effects on {dataset}",
        ["plan", "what to bear in mind", *written],
        [list(row) for row in zip(plans, shorts, *written.values())],
        frozenset(at for at, name in enumerate(written, start=2) if name != "ablation"),
        note,
        [reading.anchor for reading in readings],
    )


def _leaks(row: Row) -> str:
    leaks = _known(row, "leaks")
    return "" if leaks is None else "all" if row.get("selected_here") is True else f"{leaks:.0f}"


def _known(row: Row, name: str) -> float | None:
    value = number(row, name)
    return value if isfinite(value) else None


def _share(row: Row, name: str) -> str:
    value = _known(row, name)
    return "" if value is None else percent(value)


def _change(row: Row, name: str) -> str:
    value = _known(row, name)
    if value is None:
        return ""
    return f"{points(value)}\n{interval(number(row, f'{name}_low'), number(row, f'{name}_high'))}"


def _p_control(row: Row) -> str:
    p, least = _known(row, "p_control"), _known(row, "p_control_least")
    if p is None:
        return ""
    return p_value(p) + ("" if least is None else f"\n(least {p_value(least)})")
