"""Maps of a value over all heads of a model: a cell for each head, in a grid of layers x heads."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from safetyheads.heads import Head, parse_head
from safetyheads.report.figures.drawing import INK, MUTED, PAPER, WIDTH, Hint, paper, pens, place, to_svg
from safetyheads.statistics.attacks import changed
from safetyheads.statistics.significance import LEVEL

SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
"""The colours of values that are all above 0, and of values to both sides of one that is white."""
_LEAST_SCALE = 0.05
"""The effect that has the strongest colour where all are smaller."""

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
    `planted` (names such as `L01H03`) have a diamond.
    """
    means = ships.groupby(["layer", "head"])["score"].mean()
    values = _gridded(grid, ((Head(*map(int, at)), value) for at, value in means.items()))
    top = float(np.nanmax(values, initial=0.0))
    top = top if top > _ZERO else 1.0
    digits = int(np.clip(2 - np.floor(np.log10(top)), 0, 4))
    numbers = [f"{value:.{digits}f}" if round(value, digits) else "0" for value in values.flat]
    with pens():
        figure, axes = _map(values, Scale(SEQUENTIAL, 0.0, top, (0.0, top)), "mean Ships (nats)", numbers)
        if not _has_numbers(grid):
            _ring(axes, values)
        _diamonds(axes, planted, grid)
        return to_svg(figure, label, prefix, _ships_hints(ships, grid))


def score_map(
    scores: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    unit: str = "",
    *,
    label: str = "Scores by layer and head",
    prefix: str = "scores",
) -> str:
    """A map of each head's score by a method that has one for each head, to both sides of 0.

    `scores` has the columns layer, head, score and selected: heads of the method's own choice are outlined. All else is
    as in `ships_map`.
    """
    heads = [Head(int(layer), int(head)) for layer, head in zip(scores["layer"], scores["head"])]
    values = _gridded(grid, zip(heads, scores["score"]))
    far = float(np.nanmax(np.abs(values), initial=0.0))
    far = far if far > _ZERO else 1.0
    digits = int(np.clip(1 - np.floor(np.log10(far)), 0, 4))
    numbers = [f"{value:.{digits}f}" if round(value, digits) else "0" for value in values.flat]
    chosen = [head for head, of in zip(heads, scores["selected"]) if not pd.isna(of) and of]
    hints = [_hint(head, grid, f"{head}: {score:.3g} {unit}") for head, score in zip(heads, scores["score"])]
    with pens():
        figure, axes = _map(values, Scale(DIVERGING, -far, far, (-far, far)), f"score ({unit})", numbers)
        _outline(axes, chosen)
        _diamonds(axes, planted, grid)
        return to_svg(figure, label, prefix, hints)


def change_map(
    attacks: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    *,
    label: str = "Change of Ships by layer and head",
    prefix: str = "attack",
) -> str:
    """A map of how far each head's mean Ships score changes from a clean template to an attack: below 0, it loses.

    `attacks` has the columns layer, head, score_change and its interval. Heads that are `changed` are outlined.
    All else is as in `score_map`.
    """
    changes = attacks.assign(score=attacks["score_change"], selected=changed(attacks))
    return score_map(changes, grid, planted, "nats, attack less clean", label=label, prefix=prefix)


def shift_map(
    ships: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    *,
    label: str = "Refusal shift by layer and head",
    prefix: str = "shift",
) -> str:
    """A map of each head's mean refusal shift over the prompts, in nats: below 0 (blue) the head supports refusal.

    `ships` has the columns layer, head, score and refusal_shift, which is not missing everywhere. All else is as in
    `ships_map`.
    """
    means = ships.groupby(["layer", "head"])["refusal_shift"].mean()
    values = _gridded(grid, ((Head(*map(int, at)), value) for at, value in means.items()))
    far = max(float(np.nanmax(np.abs(values), initial=0.0)), _LEAST_SCALE)
    digits = 1 if far < 10 else 0
    numbers = [f"{value:+.{digits}f}" if round(value, digits) else "0" for value in values.flat]
    with pens():
        figure, axes = _map(values, Scale(DIVERGING, -far, far, (-far, far)), "mean refusal shift (nats)", numbers)
        _diamonds(axes, planted, grid)
        return to_svg(figure, label, prefix, _ships_hints(ships, grid))


def _ships_hints(ships: pd.DataFrame, grid: tuple[int, int]) -> list[Hint]:
    """For each scored head its cell, and its mean score and shifts."""
    shifts = {"refusal_shift": "refusal shift", "answer_shift": "answer shift"}
    given = [name for name in shifts if name in ships and ships[name].notna().any()]
    means = ships.groupby(["layer", "head"])[["score", *given]].mean()
    return [
        _hint(
            head := Head(*map(int, at)),
            grid,
            ", ".join([f"{head}: {score:.3g} nats", *(f"{shifts[k]} {v:+.2f}" for k, v in zip(given, values))]),
        )
        for at, (score, *values) in zip(means.index, means.to_numpy())
    ]


def _hint(head: Head, grid: tuple[int, int], text: str) -> Hint:
    """What is shown while the pointer is over the cell of a head."""
    width, height = _cell(grid)
    return Hint(_LEFT + head.head * width, _TOP + head.layer * height, width, height, text)


def single_map(
    heads: pd.DataFrame,
    grid: tuple[int, int],
    planted: Sequence[str] = (),
    *,
    label: str = "Coherent ASR by the head that is ablated",
    prefix: str = "single",
) -> str:
    """A map of the coherent ASR with each head ablated by itself, from the rows of one map of `maps_by_head`.

    `grid` is the model's (layers, heads per layer). Colours diverge around the plain model's rate, equally far to both
    sides. Heads that survive Holm's correction are outlined, the heads in `planted` have a diamond, and heads that are
    not in the map stay empty. What is known of a head is shown while the pointer is over it.
    """
    names = [Head(int(layer), int(head)) for layer, head in zip(heads["layer"], heads["head"])]
    effects = _gridded(grid, zip(names, heads["effect"]))
    plain, far = float(heads["plain"].mean()), float(np.nanmax(np.abs(effects), initial=0.0))
    far = max(far, _LEAST_SCALE)
    numbers = [f"{100 * value:.0f}" if np.isfinite(value) else "" for value in (plain + effects).flat]
    sure = [name for name, p in zip(names, heads["p_adjusted"]) if p < LEVEL]
    low, high = 100 * (plain - far), 100 * (plain + far)
    scale = Scale(DIVERGING, low, high, (max(0.0, low), min(100.0, high)))
    with pens():
        figure, axes = _map(100 * (plain + effects), scale, "coherent ASR (%)", numbers)
        _outline(axes, sure)
        _diamonds(axes, planted, grid)
        bar = figure.axes[1]
        bar.plot(100 * plain, 1.0, "v", color=INK, markersize=6, clip_on=False)
        side, shift = ("left", 5) if 100 * plain < sum(scale.shown) / 2 else ("right", -5)
        bar.annotate(
            "plain", (100 * plain, 1.0), (shift, 2), textcoords="offset points", ha=side, fontsize=8.5, color=INK
        )
        known = [
            f"{name}: {row['ablated']:.2f}, plain {row['plain']:.2f}, {row['effect']:+.2f}; prompts: {row['up']:.0f} "
            f"up, {row['down']:.0f} down; Holm p {row['p_adjusted']:.2g}"
            for name, row in zip(names, heads.to_dict("records"))
        ]
        return to_svg(figure, label, prefix, [_hint(name, grid, text) for name, text in zip(names, known)])


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


class Scale(NamedTuple):
    """The colours of a map, the values of the first and the last of them, and the part that the colour bar shows."""

    colours: str
    low: float
    high: float
    shown: tuple[float, float]

    def dark(self, value: float) -> bool:
        """Whether the colour of a value is so dark that text on it has to be white."""
        red, green, blue, _ = colormaps[self.colours](Normalize(self.low, self.high)(value))
        return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.5)


def _map(values: NDArray[np.float64], scale: Scale, quantity: str, numbers: list[str]) -> tuple[Figure, Axes]:
    """Draw the map of `values` (layers, heads). The colour bar is the second axes."""
    layers, heads = values.shape
    width, height = _cell((layers, heads))
    figure = paper(_TOP + layers * height + _BELOW)
    axes = place(figure, _LEFT, _BELOW, heads * width, layers * height)
    axes.imshow(values, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="auto", interpolation="none")
    axes.set_xticks(range(0, heads, _step(heads, width, 18)))
    axes.set_yticks(range(0, layers, _step(layers, height, 12)))
    axes.set_xlabel("head", labelpad=2)
    axes.set_ylabel("layer")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = place(figure, _LEFT, 30, heads * width, 9)
    shades = np.linspace(*scale.shown, 128)[None]
    bar.imshow(shades, cmap=scale.colours, vmin=scale.low, vmax=scale.high, aspect="auto", extent=(*scale.shown, 0, 1))
    bar.set_yticks([])
    bar.xaxis.set_major_locator(MaxNLocator(5))
    bar.set_xlabel(quantity, labelpad=2)
    bar.tick_params(length=2, color=MUTED)
    bar.spines[:].set_visible(False)
    if _has_numbers((layers, heads)):
        for (layer, head), number in zip(np.ndindex(values.shape), numbers):
            if np.isfinite(values[layer, head]):
                colour = "#ffffff" if scale.dark(float(values[layer, head])) else "#000000"
                axes.text(head, layer, number, ha="center", va="center", fontsize=8.5, color=colour)
    return figure, axes


def _ring(axes: Axes, values: NDArray[np.float64]) -> None:
    """A ring around the highest value of a map."""
    if np.isfinite(values).any():
        layer, head = np.unravel_index(np.nanargmax(values), values.shape)
        axes.plot(head, layer, "o", color="none", markeredgecolor=PAPER, markersize=13, markeredgewidth=3)
        axes.plot(head, layer, "o", color="none", markeredgecolor=INK, markersize=13, markeredgewidth=1.2)


def _step(count: int, size: float, least: float) -> int:
    """The step with which to label `count` ticks that are `size` units apart, so that labels are `least` units apart.

    A step of 2 labels every second tick.
    """
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, max(count, 1)) if step * size >= least or step >= count)


def _outline(axes: Axes, heads: Iterable[Head]) -> None:
    """An outline around the cells of these heads."""
    for layer, head in heads:
        for colour, width in (("#ffffff", 3.6), ("#000000", 1.6)):
            box = Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=width)
            axes.add_patch(box).set_clip_on(False)


def _diamonds(axes: Axes, planted: Sequence[str], grid: tuple[int, int]) -> None:
    """A diamond on the cells of these heads, beside their numbers if they have any."""
    right, up = (0.33, 0.26) if _has_numbers(grid) else (0.0, 0.0)
    for layer, head in map(parse_head, planted):
        axes.plot(head + right, layer - up, "D", color="#ffffff", markeredgecolor="#000000", markersize=5)
