"""The heads that methods of attribution name first, beside each other."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from safetyheads.heads import Head
from safetyheads.report.figures.drawing import INK, MUTED, WIDTH, paper, pens, place, to_svg

_ROW, _CELL, _LEFT, _LETTER = 19.0, 74.0, 78.0, 5.2


def named_heads(
    named: Mapping[str, Sequence[Head]],
    heads: Sequence[Head],
    planted: Collection[str] = (),
    *,
    label: str = "Heads by method",
    prefix: str = "named",
) -> str:
    """A column for each method, a row for each of `heads`: at which place the method names the head, if it does.

    `named` has for each method its heads, the first one first. Planted heads have a diamond beside their name.
    """
    places = np.array([[own.index(head) + 1 if head in own else np.nan for own in named.values()] for head in heads])
    words = [f"\u25c6 {head}" if str(head) in planted else str(head) for head in heads]
    above = 14 + _LETTER * max(map(len, named))
    width = min(_CELL, (WIDTH - _LEFT - 10) / len(named))
    last = max(map(len, named.values()))
    with pens():
        figure = paper(above + _ROW * len(heads) + 8)
        axes = place(figure, _LEFT, 8, width * len(named), _ROW * len(heads))
        axes.imshow(last - places, cmap="Blues", vmin=-0.8, vmax=last, aspect="auto", interpolation="none")
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(named)), list(named), rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(heads)), words)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(named) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(heads) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=MUTED, linewidth=0.3)
        axes.tick_params(which="minor", length=0)
        for (row, column), place_ in np.ndenumerate(places):
            if np.isfinite(place_):
                colour = "#ffffff" if place_ <= last * 0.4 else INK
                axes.text(column, row, f"{place_:.0f}", ha="center", va="center", fontsize=8.5, color=colour)
        return to_svg(figure, label, prefix)
