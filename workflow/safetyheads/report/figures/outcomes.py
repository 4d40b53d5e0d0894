"""Figures of outcomes: what becomes of the answers, a set of heads among the draws of its control, and the noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safetyheads.plans import parse_plan
from safetyheads.report.figures.drawing import (
    COLOURS,
    INK,
    LEGEND_ROW,
    MUTED,
    PAPER,
    RULE,
    WIDTH,
    legend,
    paper,
    pens,
    percent,
    place,
    short,
    to_svg,
)
from safetyheads.statistics.significance import SAME

OUTCOMES = {
    "coherent_asr": ("complied", "#d55e00"),
    "refused": ("refused", "#006a9e"),
    "short": ("short", "#56b4e9"),
    "other": ("other", "#009e73"),
    "unfinished": ("unfinished", "#cc79a7"),
    "degenerate": ("broken", "#8d939c"),
}
"""The columns of shares in rates, from left to right, with their names and colours.

The dark theme would make Okabe and Ito's blue as light as the blue of `short`, so `refused` has a blue of its own.
"""

_ROW, _BAR = 21.0, 0.72
_WRITTEN = 0.1
"""The smallest share that is written into its bar."""
_TALLEST, _DOT = 46.0, 4.4
"""The greatest height of a stack of draws, and of one draw in it, in units."""
_BINS = 68
"""Draws in one bin stand on each other."""


def attributed(rates: pd.DataFrame) -> list[str]:
    """The plans of the rows that have effects, in their order."""
    return [name for name in map(str, dict.fromkeys(rates["plan"])) if parse_plan(name).has_effects]


def has_outcomes(rates: pd.DataFrame) -> bool:
    """Whether the shares of the outcomes are among the columns and known."""
    return set(OUTCOMES) <= set(rates) and bool(rates["coherent_asr"].notna().any())


def outcome_bars(rates: pd.DataFrame, *, label: str = "Outcomes", prefix: str = "outcomes") -> str:
    """The shares of the outcomes, a stacked bar for the plain model, each attributed plan and, under it, its control.

    `rates` has the rows of one ablation and of the plain model. A control's bar is the mean over the draws of
    `matched-PLAN`. A judge of harm finds no refusals, and their share is null: they are drawn as `other`.
    """
    rows: list[tuple[str, pd.DataFrame, bool]] = []
    for plan in ["none"] * bool((rates["plan"] == "none").any()) + attributed(rates):
        rows.append(("plain model" if plan == "none" else plan, rates[rates["plan"] == plan], True))
        matched = rates[rates["plan"] == f"matched-{plan}"]
        if len(matched):
            draws = f"{len(matched)} draws" if len(matched) > 1 else "1 draw"
            rows.append((f"its control, {draws}", matched, False))
    shares = [_shares(part) for _, part, _ in rows]
    shown = [column for column in OUTCOMES if any(share[column] > 0 for share in shares)]
    names = [short(name, 27) for name, *_ in rows]
    left = 12 + 5.6 * max(map(len, names), default=4)
    columns = 3
    key = LEGEND_ROW * -(-len(shown) // columns) + 6
    with pens():
        figure = paper(_ROW * len(rows) + 36 + key)
        axes = place(figure, left, 34, WIDTH - left - 14, _ROW * len(rows))
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="share of prompts")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_yticks(range(len(rows)), names)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for tick, (_, _, own) in zip(axes.get_yticklabels(), rows):
            tick.set_color(INK if own else MUTED)
        for y, share in enumerate(shares):
            _stack(axes, y, {column: float(share[column]) for column in shown}, 1.0 if rows[y][2] else 0.72)
        legend(figure, [(OUTCOMES[name][0], OUTCOMES[name][1], "s", "none") for name in shown], columns)
        return to_svg(figure, label, prefix)


def _shares(rows: pd.DataFrame) -> "pd.Series[float]":
    """The mean shares of all outcomes. They add up to 1."""
    shares = rows[list(OUTCOMES)].astype("float64").fillna(0.0).mean()
    shares["other"] += max(1 - shares.sum(), 0.0)
    return shares.where(shares > SAME, 0.0)


def _stack(axes: Axes, y: int, shares: Mapping[str, float], height: float) -> None:
    """Draw one bar of shares beside each other; a control's is lower (`height`)."""
    start = 0.0
    for column, share in shares.items():
        if share > 0:
            axes.barh(y, share, left=start, height=_BAR * height, color=OUTCOMES[column][1])
        if share >= _WRITTEN:
            colour = "#000000" if column in ("short", "degenerate", "unfinished") else "#ffffff"
            axes.text(
                start + share / 2, y, f"{100 * share:.0f}", ha="center", va="center_baseline", fontsize=8, color=colour
            )
        start += share


def control_strip(
    rates: pd.DataFrame, words: Mapping[str, str], *, label: str = "Controls", prefix: str = "controls"
) -> str:
    """Each attributed plan that has a control, among its draws, on an axis of the share that is answered.

    `rates` has the rows of one ablation and of the plain model, which is the dashed line. A dot is the mean of one draw
    of `matched-PLAN`; equal ones stand on each other. The diamond is the plan. `words` says of each plan what is
    written beside its name: how many draws go as far.
    """
    plans = [plan for plan in attributed(rates) if (rates["plan"] == f"matched-{plan}").any()]
    plain = rates.loc[rates["plan"] == "none", "coherent_asr"].astype("float64").head(1)
    stacks = [_stacks(rates.loc[rates["plan"] == f"matched-{plan}", "coherent_asr"]) for plan in plans]
    most = [max(stack.values(), default=1) for stack in stacks]
    step = [min(_DOT, _TALLEST / dots) for dots in most]
    heights = [36 + dots * size for dots, size in zip(most, step)]
    with pens():
        figure = paper(sum(heights) + 38)
        axes = place(figure, 14, 34, WIDTH - 40, sum(heights))
        axes.set(xlim=(-0.02, 1.02), ylim=(0, sum(heights)), xlabel="share of prompts that are answered")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_yticks([])
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        top = sum(heights)
        for plan, stack, size, height in zip(plans, stacks, step, heights):
            base = top - height + 7
            axes.axhline(base - 4, color=RULE, linewidth=0.7, zorder=0)
            axes.vlines(plain, base - 4, top - 19, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
            x = [at / _BINS for at, count in stack.items() for _ in range(count)]
            y = [base + size * (place_ + 0.5) for count in stack.values() for place_ in range(count)]
            axes.plot(x, y, "o", color=PAPER, markeredgecolor=COLOURS[0], markersize=min(4.4, size + 0.6), zorder=3)
            own = float(rates.loc[rates["plan"] == plan, "coherent_asr"].iloc[0])
            axes.plot(own, base + 3, "D", color=COLOURS[1], markeredgecolor=PAPER, markersize=8, zorder=5)
            _named(axes, plan, words.get(plan, ""), top - 12)
            top -= height
        return to_svg(figure, label, prefix)


def _stacks(draws: pd.Series) -> dict[int, int]:
    """How many draws stand in each bin."""
    bins = np.rint(draws.dropna().to_numpy(dtype="float64") * _BINS).astype(int)
    found, counts = np.unique(bins, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist()))


def _named(axes: Axes, plan: str, words: str, y: float) -> None:
    axes.annotate(
        short(plan, 24), (0, y), (-4, 0), textcoords="offset points", fontsize=9, weight="bold", color=INK, va="center"
    )
    axes.annotate(words, (1, y), (6, 0), textcoords="offset points", fontsize=8.5, color=MUTED, va="center", ha="right")


def noise_bars(noise: pd.DataFrame, *, label: str = "Noise", prefix: str = "noise") -> str:
    """The share of the plain model's texts, and of each judge's verdicts, that differ between batches.

    `noise` has the rows of one model: judge, texts and verdicts. Where all are 0, the words say that none differ.
    """
    bars = [("texts", float(noise["texts"].max()))]
    bars += [(f"verdicts, {judge}", float(share)) for judge, share in zip(noise["judge"], noise["verdicts"])]
    names = [short(name, 26) for name, _ in bars]
    left = 12 + 5.4 * max(map(len, names))
    top = max(0.1, *(share for _, share in bars))
    with pens():
        figure: Figure = paper(_ROW * len(bars) + 38)
        axes = place(figure, left, 34, WIDTH - left - 70, _ROW * len(bars))
        axes.set(xlim=(0, top), ylim=(len(bars) - 0.5, -0.5), xlabel="share that differs")
        ticks = np.linspace(0, top, 3)
        axes.set_xticks(ticks, [percent(round(tick, 3)) for tick in ticks])
        axes.set_yticks(range(len(bars)), names)
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        for y, (_, share) in enumerate(bars):
            axes.barh(y, share, height=0.5, color=COLOURS[0])
            words = percent(share) if share > 0 else "none differ"
            axes.annotate(words, (share, y), (5, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
        return to_svg(figure, label, prefix)
