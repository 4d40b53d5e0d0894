"""The figure of a search for a group of heads, step by step."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safetyheads.heads import Head
from safetyheads.report.figures.drawing import COLOURS, INK, PAPER, RULE, WIDTH, paper, pens, place, to_svg

SHOWN = 30
"""The number of candidates of a step that have a mark of their own."""


def search_steps(
    found: pd.DataFrame,
    planted: Sequence[str] = (),
    unit: str = "degrees",
    *,
    label: str = "Scores by step",
    prefix: str = "steps",
) -> str:
    """The scores of the candidates of each step, in `unit`.

    The best `SHOWN` have marks, and a bar shows the range of the others. The mark of the selected head is filled and
    ticked. The best two heads are named. The heads in `planted` are diamonds, and named as well. `found` has the
    columns step, layer, head, score and selected.
    """
    steps = sorted(int(step) for step in found["step"].unique())
    top = float(found["score"].max())
    top = top if np.isfinite(top) and top > 0 else 1.0
    with pens():
        figure = paper(280)
        axes = place(figure, 46, 26, WIDTH - 52, 246)
        axes.set(xlim=(-0.3, len(steps) - 0.3), ylim=(-0.05 * top, 1.07 * top), ylabel=f"score ({unit})")
        axes.set_xticks(range(len(steps)), [f"step {step}" for step in steps])
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        for x, step in enumerate(steps):
            _candidates(axes, x, ranked(found, step), planted, gap=0.055 * top)
        return to_svg(figure, label, prefix)


def ranked(found: pd.DataFrame, step: int) -> pd.DataFrame:
    """The candidates of a step, best first, with their names in a further column `name`.

    Of candidates with equal scores, the lower layer and then the lower head comes first.
    """
    rows = found[found["step"] == step].sort_values(["score", "layer", "head"], ascending=[False, True, True])
    return rows.assign(name=[str(Head(int(layer), int(head))) for layer, head in zip(rows["layer"], rows["head"])])


def _candidates(axes: Axes, x: int, rows: pd.DataFrame, planted: Sequence[str], gap: float) -> None:
    """Draw the candidates of one step, which are sorted, at `x`. Their names are at least `gap` apart."""
    others = rows["score"].iloc[SHOWN:]
    if len(others):
        axes.vlines(x, others.min(), others.max(), color=RULE, linewidth=5)
    below = np.inf
    for rank, (name, score, selected) in enumerate(zip(rows["name"], rows["score"], rows["selected"])):
        is_planted = name in planted
        if rank >= SHOWN and not selected and not is_planted:
            continue
        fill, edge = (COLOURS[1], COLOURS[1]) if selected else (PAPER, COLOURS[0])
        size = 8 if selected else 6 if is_planted else 4.5
        axes.plot(
            x,
            score,
            "D" if is_planted else "o",
            color=fill,
            markeredgecolor=edge,
            markersize=size,
            zorder=4 + bool(selected),
        )
        if selected or is_planted or rank < 2:
            below = min(float(score), below - gap)
            text = f"{name} ✓" if selected else name
            axes.text(
                x + 0.08, below, text, va="center", fontsize=8.5, color=INK, weight="bold" if selected else "normal"
            )
