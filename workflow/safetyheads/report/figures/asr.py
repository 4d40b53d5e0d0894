"""Figures of attack success rates (ASR): by plan, and by number of ablated heads."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safetyheads.heads import parse_head
from safetyheads.methods import METHODS
from safetyheads.plans import GROUPS, parse_plan
from safetyheads.report.figures.drawing import (
    COLOURS,
    INK,
    LEGEND_ROW,
    LINES,
    MARKERS,
    MUTED,
    PAPER,
    RULE,
    WIDTH,
    LineStyle,
    legend,
    paper,
    pens,
    percent,
    place,
    short,
    to_svg,
)

_DODGE = 15.0
"""The distance, in units, between the marks of two ablations in one row."""


def asr_by_plan(rates: pd.DataFrame, *, label: str = "ASR by plan", prefix: str = "plans") -> str:
    """ASR and its 95 % interval, a row for each plan, for one model, data set, template, decoding and judge.

    Each ablation has a colour and a marker. The dashed line is the plain model. Of a `single` plan, the head of highest
    ASR has the marker, and the others are ticks; so it is with `each-`. Of `random-n` and `matched-`, every draw is a
    hollow marker and their mean a bar.
    """
    plain = rates[rates["plan"] == "none"].head(1)
    ablations = [str(name) for name in dict.fromkeys(rates.loc[rates["plan"] != "none", "ablation"])]
    plans = [str(plan) for plan in dict.fromkeys(rates["plan"]) if plan != "none"]
    names = ["plain model"] * len(plain) + [_row_name(plan) for plan in plans]
    row = max(34.0, _DODGE * len(ablations) + 8)
    columns = 1 + (max(map(len, ablations), default=0) <= 26)
    key = LEGEND_ROW * -(-len(ablations) // columns) + 6 if len(ablations) > 1 else 4.0
    left = 14 + 5.3 * max((len(line) for name in names for line in name.split("\n")), default=4)
    right = 92.0 if any(parse_plan(plan).kind in ("single", "each") for plan in plans) else 46.0
    with pens():
        figure = paper(row * len(names) + 36 + key)
        axes = place(figure, left, 36, WIDTH - left - right, row * len(names))
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5), xlabel="attack success rate")
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        for _, one in plain.iterrows():
            axes.axvline(one["asr"], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
            _interval(axes, one, 0, INK, "o")
        for y, plan in enumerate(plans, start=len(plain)):
            for k, ablation in enumerate(ablations):
                rows = rates[(rates["plan"] == plan) & (rates["ablation"] == ablation)]
                shift = (k - (len(ablations) - 1) / 2) * _DODGE / row
                if len(rows):
                    _plan(axes, plan, rows, y + shift, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)])
        if len(ablations) > 1:
            pairs = [(name, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]) for k, name in enumerate(ablations)]
            legend(figure, [(*pair, "none") for pair in pairs], columns)
        return to_svg(figure, label, prefix)


@dataclass(frozen=True)
class Line:
    """What `asr_by_n` draws in one style.

    `points` has the columns n_heads, asr, low and high. `draws` has the rows of single draws of random plans, and is
    empty for other plans.
    """

    name: str
    joined: bool
    """Whether a line joins the points, beginning at the plain model. If not, each point stands by itself."""
    points: pd.DataFrame
    draws: pd.DataFrame


def lines(rates: pd.DataFrame, head_sets: Mapping[str, int]) -> list[Line]:
    """The lines of `asr_by_n`, in the order of the plans. `head_sets` has the number of heads of each head set."""
    found: dict[tuple[str, bool], list[pd.DataFrame]] = {}
    for name in map(str, dict.fromkeys(rates["plan"])):
        plan, rows = parse_plan(name), rates[rates["plan"] == name]
        if plan.kind in (*METHODS, "random"):
            line = plan.kind + (f"@{plan.source}" if plan.source else ""), True
            found.setdefault(line, []).append(rows.assign(n_heads=plan.n))
        elif plan.kind == "single":
            found["best single head", False] = [best_single(rows).assign(n_heads=1)]
        elif name in head_sets:
            found[f"set {name}", False] = [rows.assign(n_heads=head_sets[name])]
    made = []
    for (name, joined), parts in found.items():
        rows = pd.concat(parts)
        points = rows.groupby("n_heads", as_index=False)[["asr", "low", "high"]].mean()
        if name == "random":
            made.append(Line("random: mean and draws", joined, points.assign(low=np.nan, high=np.nan), rows))
        else:
            made.append(Line(name, joined, points, rows.head(0)))
    return made


def asr_by_n(
    rates: pd.DataFrame,
    head_sets: Mapping[str, int] | None = None,
    *,
    label: str = "ASR by number of ablated heads",
    prefix: str = "numbers",
) -> str:
    """ASR against the number of ablated heads, from the rows of one ablation and of the plain model (0 heads).

    Bars are 95 % intervals, and small dots are random draws. The best head of `single` and the head sets have marks
    that no line joins. `head_sets` has the number of heads of each head set.
    """
    plain = rates[rates["plan"] == "none"].head(1)
    drawn = lines(rates, head_sets or {})
    most = max((int(line.points["n_heads"].max()) for line in drawn), default=1)
    columns = 1 + (max((len(line.name) for line in drawn), default=0) <= 26)
    key = LEGEND_ROW * -(-len(drawn) // columns) + 8
    with pens():
        figure = paper(248 + key)
        axes = place(figure, 46, 36, WIDTH - 58, 212)
        axes.set(xlim=(-0.04 * most - 0.1, most * 1.04 + 0.1), ylim=(-0.04, 1.04), xlabel="number of ablated heads")
        axes.set_xticks(range(0, most + 1, -(-most // 12)))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_ylabel("attack success rate")
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        keys: list[tuple[str, str, str, LineStyle]] = []
        for k, line in enumerate(drawn):
            colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
            style: LineStyle = LINES[k % len(LINES)] if line.joined else "none"
            offset = (k - (len(drawn) - 1) / 2) * 0.012 * most
            _line(axes, line, plain, offset, colour, marker, style)
            keys.append((line.name, colour, marker, style))
        for _, one in plain.iterrows():
            axes.axhline(one["asr"], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
            axes.plot(0, one["asr"], "o", color=INK, markersize=7, markeredgecolor=PAPER, zorder=6)
        legend(figure, keys, columns)
        return to_svg(figure, label, prefix)


def best_single(rows: pd.DataFrame, by: str = "asr") -> pd.DataFrame:
    """The row with the highest ASR among `rows`, those of one `single` plan. Of equal rows, the first head counts.

    The result is a table of one row. Heads are in order of layer, then head. `by` is the column that is compared.
    """
    top = rows[rows[by] == rows[by].max()]
    first = min(range(len(top)), key=lambda i: parse_head(str(top["variant"].iloc[i])))
    return top.iloc[[first]]


def _row_name(plan: str) -> str:
    match parse_plan(plan).kind:
        case "single":
            return "single\n(best head)"
        case "random" | "matched":
            return f"{short(plan, 20)}\n(draws, mean)"
        case "each":
            return f"{short(plan, 20)}\n(best head)"
        case kind if kind in GROUPS and "@" in plan:
            name, _, source = plan.partition("@")
            return f"{short(name, 20)}\n@{short(source, 19)}"
        case _:
            return short(plan, 20)


def _plan(axes: Axes, plan: str, rows: pd.DataFrame, y: float, colour: str, marker: str) -> None:
    """Draw one plan under one ablation, at height `y`."""
    kind = parse_plan(plan).kind
    if kind in ("random", "matched"):
        mean = float(rows["asr"].mean())
        axes.plot(rows["asr"], [y] * len(rows), marker, color=PAPER, markeredgecolor=colour, markersize=5, zorder=3)
        axes.plot(mean, y, "|", color=colour, markersize=15, markeredgewidth=2.5, zorder=4)
        _value(axes, mean, y)
    elif kind in ("single", "each"):
        others = np.unique(rows["asr"])
        axes.plot(others, [y] * len(others), "|", color=MUTED, markersize=6, zorder=2)
        best = best_single(rows).iloc[0]
        _interval(axes, best, y, colour, marker, f"  {best['variant']}")
    else:
        _interval(axes, rows.iloc[0], y, colour, marker)


def _interval(axes: Axes, one: pd.Series, y: float, colour: str, marker: str, remark: str = "") -> None:
    axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=2, solid_capstyle="round", zorder=3)
    axes.plot(one["asr"], y, marker, color=colour, markersize=8, markeredgecolor=PAPER, zorder=4)
    _value(axes, one["asr"], y, remark)


def _value(axes: Axes, asr: float, y: float, remark: str = "") -> None:
    """Write the value in figures, right of the axes."""
    axes.annotate(
        percent(asr) + remark,
        (1.02, y),
        (8, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=INK,
        annotation_clip=False,
    )


def _line(
    axes: Axes, line: Line, plain: pd.DataFrame, offset: float, colour: str, marker: str, style: LineStyle
) -> None:
    """Draw one line, moved sideways by `offset`, so that lines with equal values do not cover each other."""
    x = line.points["n_heads"] + offset
    axes.plot(line.draws["n_heads"] + offset, line.draws["asr"], "o", color=colour, markersize=3, alpha=0.55, zorder=2)
    if line.joined:
        start = plain["asr"].tolist()
        axes.plot(
            [0] * len(start) + x.tolist(), start + line.points["asr"].tolist(), color=colour, linestyle=style, lw=1.8
        )
    axes.vlines(x, line.points["low"], line.points["high"], color=colour, linewidth=1.3, zorder=2)
    axes.plot(x, line.points["asr"], marker, color=colour, markersize=8, markeredgecolor=PAPER, zorder=4)
