"""Maps of a value over all heads of a model: a cell for each head, in a grid of layers x heads."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from safetyheads.heads import Head, parse_head
from safetyheads.report.figures.drawing import INK, MUTED, PAPER, WIDTH, paper, pens, place, to_svg
from safetyheads.statistics.significance import LEVEL

COLOUR_MAP = "viridis"

_ZERO = 1e-12
"""A Ships score below this comes from rounding."""
_LEFT, _RIGHT, _TOP, _BELOW = 36.0, 14.0, 8.0, 84.0
_NUMBERS_FIT = (28.0, 15.0)
"""The smallest width and height, in units, of a cell into which its value is written."""


def ships_map(
    ships: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    *,
    label: str = "Ships by layer and head",
    prefix: str = "ships",
) -> str:
    """A map of each head's mean Ships score over the prompts, in nats.

    `ships` has the columns layer, head and score. `grid` is the model's (layers, heads per layer). The heads in
    `planted` (names such as `L01H03`) are outlined.
    """
    means = ships.groupby(["layer", "head"])["score"].mean()
    values = _gridded(grid, ((Head(*map(int, at)), value) for at, value in means.items()))
    top = float(np.nanmax(values, initial=0.0))
    top = top if top > _ZERO else 1.0
    digits = int(np.clip(2 - np.floor(np.log10(top)), 0, 4))
    numbers = [f"{value:.{digits}f}" if round(value, digits) else "0" for value in values.flat]
    with pens():
        figure, axes = _map(values, top, "mean Ships (nats)", numbers)
        _outline(axes, planted)
        return to_svg(figure, label, prefix)


def single_map(
    rates: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    plain: float | None = None,
    *,
    label: str = "ASR by the head that is ablated",
    prefix: str = "single",
) -> str:
    """A map of the ASR with each head ablated by itself, from the rows of one `single` plan.

    `grid` is the model's (layers, heads per layer), and `plain` the ASR of the plain model, which is marked on the
    colour bar. Where the ASR differs from it with a p-value below 0.05 after Holm's correction, a triangle points up or
    down. The heads in `planted` are outlined.
    """
    heads = [parse_head(str(name)) for name in rates["variant"]]
    values = _gridded(grid, zip(heads, rates["asr"]))
    with pens():
        figure, axes = _map(
            100 * values, 100.0, "attack success rate (%)", [f"{100 * value:.0f}" for value in values.flat]
        )
        _outline(axes, planted)
        size = min(7.0, max(3.5, 0.62 * min(_cell(grid))))
        right, up = (0.32, 0.28) if _has_numbers(grid) else (0.0, 0.0)
        sure = (rates["p_adjusted"] < LEVEL).to_numpy()
        for marker, towards in (("^", rates["delta"] > 0), ("v", rates["delta"] < 0)):
            marked = [heads[index] for index in np.flatnonzero(sure & towards.to_numpy())]
            x, y = [head.head + right for head in marked], [head.layer - up for head in marked]
            axes.plot(x, y, marker, color="#ffffff", markeredgecolor="#000000", markeredgewidth=0.7, markersize=size)
        if plain is not None and np.isfinite(plain):
            bar = figure.axes[1]
            bar.plot(100 * plain, 1.0, "v", color=INK, markersize=6, clip_on=False)
            side, shift = ("left", 5) if plain < 0.8 else ("right", -5)
            bar.annotate(
                "plain", (100 * plain, 1.0), (shift, 2), textcoords="offset points", ha=side, fontsize=8.5, color=INK
            )
        return to_svg(figure, label, prefix)


def _gridded(grid: tuple[int, int], values: Iterable[tuple[Head, float]]) -> NDArray[np.float64]:
    """The values as an array (layers, heads), with NaN for heads that have none."""
    filled = np.full(grid, np.nan)
    for head, value in values:
        filled[head.layer, head.head] = value
    return filled


def _cell(grid: tuple[int, int]) -> tuple[float, float]:
    """The width and height of a cell, in units."""
    layers, heads = grid
    width = (WIDTH - _LEFT - _RIGHT) / heads
    return width, min(max(width, 9.0), 34.0, max(380 / layers, 4.0))


def _has_numbers(grid: tuple[int, int]) -> bool:
    return all(size >= least for size, least in zip(_cell(grid), _NUMBERS_FIT))


def _map(values: NDArray[np.float64], top: float, quantity: str, numbers: list[str]) -> tuple[Figure, Axes]:
    """Draw the map of `values` (layers, heads), with colours from 0 to `top`. The colour bar is the second axes."""
    layers, heads = values.shape
    width, height = _cell((layers, heads))
    figure = paper(_TOP + layers * height + _BELOW)
    axes = place(figure, _LEFT, _BELOW, heads * width, layers * height)
    axes.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=top, aspect="auto", interpolation="none")
    axes.set_xticks(range(0, heads, _step(heads, width, 18)))
    axes.set_yticks(range(0, layers, _step(layers, height, 12)))
    axes.set_xlabel("head", labelpad=2)
    axes.set_ylabel("layer")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = place(figure, _LEFT, 30, heads * width, 9)
    bar.imshow(np.linspace(0, 1, 128)[None], cmap=COLOUR_MAP, aspect="auto", extent=(0, top, 0, 1))
    bar.set_yticks([])
    bar.xaxis.set_major_locator(MaxNLocator(5))
    bar.set_xlabel(quantity, labelpad=2)
    bar.tick_params(length=2, color=MUTED)
    bar.spines[:].set_visible(False)
    if _has_numbers((layers, heads)):
        dark = Normalize(0, top)(values) < 0.6
        for (layer, head), number, is_dark in zip(np.ndindex(values.shape), numbers, np.asarray(dark).flat):
            if np.isfinite(values[layer, head]):
                colour = "#ffffff" if is_dark else "#000000"
                axes.text(head, layer, number, ha="center", va="center", fontsize=8.5, color=colour)
    else:
        best = np.unravel_index(np.nanargmax(values), values.shape) if np.isfinite(values).any() else None
        if best is not None:
            axes.plot(best[1], best[0], "o", color="none", markeredgecolor=PAPER, markersize=13, markeredgewidth=3)
            axes.plot(best[1], best[0], "o", color="none", markeredgecolor=INK, markersize=13, markeredgewidth=1.2)
    return figure, axes


def _step(count: int, size: float, least: float) -> int:
    """The step with which to label `count` ticks that are `size` units apart, so that labels are `least` units apart.

    A step of 2 labels every second tick.
    """
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, max(count, 1)) if step * size >= least or step >= count)


def _outline(axes: Axes, planted: Sequence[str]) -> None:
    for name in planted:
        layer, head = parse_head(name)
        for colour, width in (("#ffffff", 3.6), ("#000000", 1.6)):
            box = Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width)
            axes.add_patch(box).set_clip_on(False)
