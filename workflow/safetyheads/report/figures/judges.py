"""Figures of judges: how pairs of them agree, and what the correction for a judge's errors makes of its rates."""

import numpy as np
import pandas as pd

from safetyheads.plans import PLAIN
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
    place,
    short,
    to_svg,
)

_ROW = 26.0
_CELL = 44.0
_SHADES = "Blues"
_CORRECTED = ("corrected_asr", "corrected_low", "corrected_high")


def kappa_matrix(agreement: pd.DataFrame, *, label: str = "Judges beside each other", prefix: str = "kappa") -> str:
    """Cohen's kappa of each pair of judges, from the rows of outcome `all` of one model and condition.

    A kappa of 0 or less is white, and one that is not defined is a dash.
    """
    judges = sorted({*agreement["first"].astype(str), *agreement["second"].astype(str)})
    values = np.full((len(judges), len(judges)), np.nan)
    for first, second, kappa in zip(agreement["first"], agreement["second"], agreement["kappa"]):
        one, other = judges.index(str(first)), judges.index(str(second))
        values[one, other] = values[other, one] = kappa
    names = [short(name, 20) for name in judges]
    left = 14 + 5.6 * max(map(len, names))
    cell = min(_CELL, (WIDTH - left - 10) / len(judges))
    with pens():
        figure = paper(cell * len(judges) + 12 + 5.2 * max(map(len, names)))
        axes = place(figure, left, 6 + 5.2 * max(map(len, names)), cell * len(judges), cell * len(judges))
        axes.imshow(values, cmap=_SHADES, vmin=0, vmax=1.15, aspect="auto", interpolation="none")
        axes.set_xticks(range(len(judges)), names, rotation=90)
        axes.set_yticks(range(len(judges)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for one, other in np.ndindex(values.shape):
            if one != other:
                value = values[one, other]
                words, dark = (f"{value:.2f}", value > 0.65) if np.isfinite(value) else ("–", False)
                colour = "#ffffff" if dark else "#000000" if np.isfinite(value) else INK
                axes.text(other, one, words, ha="center", va="center", fontsize=min(9.0, cell / 4), color=colour)
        return to_svg(figure, label, prefix)


def corrected_strip(rates: pd.DataFrame, *, label: str = "Corrected rates", prefix: str = "corrected") -> str:
    """The ASR of each plan as the judge says (hollow) and corrected for its errors (filled), with 95 % intervals.

    `rates` has rows of one model, data set, template, decoding and judge, all of them corrected.
    """
    rows = rates.to_dict("records")
    several = rates.loc[rates["ablation"] != PLAIN, "ablation"].nunique() > 1
    names = []
    for row in rows:
        plan = f"{row['plan']}, {row['ablation']}" if several else str(row["plan"])
        names.append("plain model" if row["ablation"] == PLAIN else short(plan, 30))
    left = 12 + 5.6 * max(map(len, names))
    key = LEGEND_ROW + 6
    kinds = [("as the judge says", "asr", "low", "high", -0.16), ("corrected", *_CORRECTED, 0.16)]
    with pens():
        figure = paper(_ROW * len(rows) + 36 + key)
        axes = place(figure, left, 34, WIDTH - left - 14, _ROW * len(rows))
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="share of prompts")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        axes.set_yticks(range(len(rows)), names)
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        for (_, value, low, high, shift), colour in zip(kinds, (MUTED, COLOURS[0])):
            for y, row in enumerate(rows):
                axes.hlines(y + shift, row[low], row[high], color=colour, linewidth=1.8)
                face = PAPER if value == "asr" else colour
                axes.plot(row[value], y + shift, "o", color=face, markeredgecolor=colour, markersize=6)
        legend(figure, [(name, colour, "o", "-") for (name, *_), colour in zip(kinds, (MUTED, COLOURS[0]))], 2)
        return to_svg(figure, label, prefix)
