"""Dose curves: what becomes of the answers as a method ablates more and more heads."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safetyheads.report.figures.drawing import INK, MUTED, PAPER, RULE, WIDTH, paper, pens, place, short, to_svg
from safetyheads.report.figures.outcomes import OUTCOMES
from safetyheads.statistics.doses import REACHED

_DRAWN = {"degenerate": "^", "refused": "s", "coherent_asr": "o"}
"""What is drawn, the most important last, so that it lies above the others, and its marker."""
_LEFT, _PANEL, _HIGH, _BELOW = 38.0, 98.0, 112.0, 50.0
_COLUMNS = 2
_APART = 12.0
"""The least distance of two names at the ends of curves, in units."""


def dose_curves(doses: pd.DataFrame, *, label: str = "Dose curves", prefix: str = "doses") -> str:
    """The shares of answers that are complied with, refused and broken, by the number of ablated heads.

    `doses` has the rows of one cell and ablation of `statistics.doses.doses`. Each method has a panel of its own, all
    with the same axes, and begins with the plain model at 0 heads. Curves are named where they end. The dotted line is
    the mean coherent ASR of the matched controls, the dashed one the rate of 50 % that the page asks for.
    """
    curves = list(doses.groupby(["method", "source"], sort=False))
    rows = -(-len(curves) // _COLUMNS)
    numbers = sorted(set(doses["n_heads"].tolist()))
    with pens():
        figure = paper(rows * (_HIGH + _BELOW))
        height = figure.get_figheight() * 72
        for at, ((method, source), curve) in enumerate(curves):
            row, column = divmod(at, _COLUMNS)
            left = _LEFT + column * (WIDTH - _LEFT) / _COLUMNS
            axes = place(figure, left, height - row * (_HIGH + _BELOW) - _HIGH - 16, _PANEL, _HIGH)
            elsewhere = source != curve["dataset"].iloc[0]
            title = short(f"{method}@{source}" if elsewhere else str(method), 26)
            axes.set_title(title, fontsize=9, color=INK, loc="left")
            _frame(axes, numbers, percents=column == 0)
            _curves(axes, curve)
        return to_svg(figure, label, prefix)


def _frame(axes: Axes, numbers: Sequence[int], *, percents: bool) -> None:
    most = max(numbers)
    axes.set(ylim=(-4, 104), xlim=(-0.05 * most, 1.05 * most), xlabel="heads ablated")
    axes.set_xticks([number for number in numbers if number == 0 or number >= most / 12])
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"] if percents else ["", "", ""])
    axes.tick_params(length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.axhline(100 * REACHED, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)


def _curves(axes: Axes, curve: pd.DataFrame) -> None:
    """Draw the curves of one method, and name them where they end."""
    x = curve["n_heads"].to_numpy()
    ends: list[tuple[float, str, str, str]] = []  # height in per cent, name, colour, marker
    for column, marker in _DRAWN.items():
        name, colour = OUTCOMES[column]
        y = 100 * curve[column].to_numpy(dtype=float)
        if np.isfinite(y).any():
            axes.plot(x, y, marker=marker, color=colour, linewidth=1.8, markersize=5, markeredgecolor=PAPER, zorder=3)
            ends.append((float(y[-1]), name, colour, marker))
    control = 100 * curve["control"].to_numpy(dtype=float)
    known = np.isfinite(control)
    if known.any():
        # The control of no heads is the plain model.
        known[0], control[0] = True, 100 * float(curve["coherent_asr"].iloc[0])
        axes.plot(x[known], control[known], ":", color=INK, linewidth=1.3, marker=".", markersize=4, zorder=4)
        ends.append((float(control[known][-1]), "control", INK, "."))
    _names(axes, ends)


def _names(axes: Axes, ends: Sequence[tuple[float, str, str, str]]) -> None:
    """Write the names of curves beside the panel, with their markers, near their ends but none over another."""
    unit = _HIGH / 108  # units of length in one per cent
    ordered = sorted(ends, key=lambda end: end[0])
    places: list[float] = []
    for height, *_ in ordered:
        places.append(max(height * unit, places[-1] + _APART if places else 0.0))
    above = len(places)
    for place_, (_, name, colour, marker) in zip(places, ordered):
        above -= 1  # names that must find room between this one and the top
        y = min(place_ / unit, 100 - above * _APART / unit)
        axes.plot([1.08], [y], marker, color=colour, markersize=5, transform=axes.get_yaxis_transform(), clip_on=False)
        axes.text(1.13, y, name, fontsize=8.5, color=INK, va="center", transform=axes.get_yaxis_transform())
