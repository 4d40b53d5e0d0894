"""Dose curves: what becomes of the answers as a method ablates more and more heads."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safetyheads.report.figures.drawing import (
    INK,
    LEGEND_ROW,
    MUTED,
    RULE,
    WIDTH,
    LineStyle,
    legend,
    paper,
    pens,
    place,
    short,
    to_svg,
)
from safetyheads.report.figures.outcomes import OUTCOMES
from safetyheads.statistics.doses import REACHED

_DRAWN = ("coherent_asr", "refused", "degenerate")
_MARKERS = dict(zip(_DRAWN, ("o", "s", "^")))
_LEFT, _GAP, _PANEL, _HIGH = 40.0, 34.0, 150.0, 120.0
_COLUMNS = 2


def dose_curves(doses: pd.DataFrame, *, label: str = "Dose curves", prefix: str = "doses") -> str:
    """The shares of answers that are complied with, refused and broken, by the number of ablated heads.

    `doses` has the rows of one cell and ablation of `statistics.doses.doses`. Each method has a panel of its own, and
    begins with the plain model at 0 heads. The thin dotted line is the mean coherent ASR of the matched controls, the
    grey line the rate of 50 % that the page asks for.
    """
    curves = list(doses.groupby(["method", "source"], sort=False))
    rows = -(-len(curves) // _COLUMNS)
    key = LEGEND_ROW * 2 + 6
    with pens():
        figure = paper(key + rows * (_HIGH + 50))
        height = figure.get_figheight() * 72
        entries: list[tuple[str, str, str, LineStyle]] = [(*OUTCOMES[name], _MARKERS[name], "-") for name in _DRAWN]
        if doses["control"].notna().any():
            entries.append(("complied, control", OUTCOMES["coherent_asr"][1], "", ":"))
        legend(figure, entries, 2)
        for at, ((method, source), curve) in enumerate(curves):
            row, column = divmod(at, _COLUMNS)
            left = _LEFT + column * (_PANEL + _GAP / 2)
            bottom = height - key - row * (_HIGH + 50) - _HIGH - 16
            axes = place(figure, left, bottom, min(_PANEL, WIDTH - left - 6), _HIGH)
            elsewhere = source != curve["dataset"].iloc[0]
            title = short(f"{method}@{source}" if elsewhere else str(method), 26)
            axes.set_title(title, fontsize=9, color=INK, loc="left")
            _curve(axes, curve, first=column == 0)
        return to_svg(figure, label, prefix)


def _curve(axes: Axes, curve: pd.DataFrame, *, first: bool) -> None:
    x = curve["n_heads"].to_numpy()
    axes.set(ylim=(-4, 104), xlim=(-0.3, x.max() + 0.3), xlabel="heads ablated")
    axes.set_xticks(sorted(set(x.tolist())))
    axes.set_yticks([0, 50, 100], ["0 %", "50 %", "100 %"] if first else [])
    axes.tick_params(length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.axhline(100 * REACHED, color=MUTED, linewidth=0.8)
    for name in _DRAWN:
        y = 100 * curve[name].to_numpy(dtype=float)
        if np.isfinite(y).any():
            axes.plot(x, y, marker=_MARKERS[name], color=OUTCOMES[name][1], linewidth=1.8, markersize=5)
    control, colour = 100 * curve["control"].to_numpy(dtype=float), OUTCOMES["coherent_asr"][1]
    axes.plot(x, control, ":", color=colour, linewidth=1.4, marker=".")
