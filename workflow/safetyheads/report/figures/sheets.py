"""Sheets: figures of several panels, and the two kinds of panels that experiments share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from safetyheads.report.figures.drawing import (
    COLOURS,
    INK,
    LEGEND_ROW,
    LINES,
    MARKERS,
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

_ROW, _LETTER, _TITLE, _GAP = 17.0, 5.0, 20.0, 18.0


class Panel(NamedTuple):
    """One of the figures on a sheet, with its title."""

    title: str
    svg: str


def sheet(panels: Sequence[Panel], label: str, columns: int = 2) -> str:
    """Panels beside and below each other on one sheet, each below its title."""
    parts = [ElementTree.fromstring(panel.svg) for panel in panels]
    sizes = [tuple(float(part.attrib[name]) for name in ("width", "height")) for part in parts]
    columns = min(columns, max(1, len(panels)))
    width, y = columns * (WIDTH + _GAP) - _GAP, 0.0
    root = ElementTree.Element(
        "svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", "aria-label": short(label, 2000)}
    )
    for start in range(0, len(panels), columns):
        row = range(start, min(start + columns, len(panels)))
        for column, at in enumerate(row):
            x = column * (WIDTH + _GAP)
            place_ = {"x": f"{x:g}", "y": f"{y + 13:g}", "font-size": "11", "fill": INK}
            title = ElementTree.SubElement(root, "text", {**place_, "font-weight": "bold"})
            title.text = short(panels[at].title, 52)
            for name in ("role", "aria-label", "xmlns"):
                parts[at].attrib.pop(name, None)
            parts[at].attrib.update({"x": f"{x:g}", "y": f"{y + _TITLE:g}"})
            parts[at].tag = "svg"
            for element in parts[at].iter():
                element.tag = element.tag.rpartition("}")[2]
            root.append(parts[at])
        y += _TITLE + max(sizes[at][1] for at in row) + _GAP
    root.attrib.update({"viewBox": f"0 0 {width:g} {y:g}", "width": f"{width:g}", "height": f"{y:g}"})
    root.set("font-family", "'DejaVu Sans', Verdana, system-ui, sans-serif")
    return ElementTree.tostring(root, encoding="unicode")


def _marker(at: int) -> str:
    """The marker of a series: when colours begin anew, they come with other markers."""
    return MARKERS[(at + at // len(COLOURS)) % len(MARKERS)]


def dots(rows: pd.DataFrame, axis: str, beside: str = "", *, label: str, prefix: str) -> str:
    """A row for each `name`, with a dot and its 95 % interval for each `series`.

    `rows` has the columns name, series, value, low, high (null: no interval) and beside, the value to compare with,
    which is a bar across the row; `beside` says what that is. Values are shares.
    """
    names, series = list(dict.fromkeys(rows["name"])), list(dict.fromkeys(rows["series"]))
    step = max(_ROW, 9.0 * len(series) + 6)
    left = min(190.0, 14 + _LETTER * max((len(name) for name in names), default=4))
    columns = 1 + (max(map(len, series), default=0) <= 26)
    marked = bool(beside) and rows["beside"].notna().any()
    keys: list[tuple[str, str, str, LineStyle]] = [
        (name, COLOURS[k % len(COLOURS)], _marker(k), "none") for k, name in enumerate(series)
    ]
    key = LEGEND_ROW * -(-len(keys) // columns) + 6
    low = min(0.0, float(np.nanmin(rows[["value", "low", "beside"]].to_numpy(dtype=float), initial=0.0)))
    with pens():
        figure = paper(step * len(names) + 36 + key)
        axes = place(figure, left, 36, WIDTH - left - 14, step * len(names))
        axes.set(
            xlim=(low - 0.02, 1.02),
            ylim=(len(names) - 0.5, -0.5),
            xlabel=f"{axis} (bars: {beside})" if marked else axis,
        )
        axes.set_yticks(range(len(names)), [short(name, 36) for name in names])
        ticks = [at for at in (-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1) if at >= low]
        axes.set_xticks(ticks, [percent(at) for at in ticks])
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
        for one in rows.to_dict("records"):
            k = series.index(one["series"])
            y = names.index(one["name"]) + (k - (len(series) - 1) / 2) * 9.0 / step
            colour, marker = COLOURS[k % len(COLOURS)], _marker(k)
            if marked:
                axes.plot(one["beside"], y, "|", color=INK, markersize=9, markeredgewidth=1.6, zorder=5)
            axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=1.6, zorder=3)
            axes.plot(one["value"], y, marker, color=colour, markersize=6, markeredgecolor=PAPER, zorder=4)
        legend(figure, keys, columns)
        return to_svg(figure, label, prefix)


def curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]], x: str, y: str, *, counts: bool = False, label: str, prefix: str
) -> str:
    """A line for each name: (x, y), where x has a logarithmic axis.

    With `counts`, x has whole numbers from 0 on and y shares, and each point has a marker.
    """
    columns = 1 + (max(map(len, lines), default=0) <= 26)
    key = LEGEND_ROW * -(-len(lines) // columns) + 8
    with pens():
        figure = paper(190 + key)
        axes = place(figure, 46, 36, WIDTH - 58, 150)
        axes.set(xscale="linear" if counts else "log", xlabel=x, ylabel=y)
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(length=0, which="both")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if counts:
            axes.set_xticks(sorted({int(at) for across, _ in lines.values() for at in across}))
            axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        keys: list[tuple[str, str, str, LineStyle]] = []
        for k, (name, (across, up)) in enumerate(lines.items()):
            style = LINES[k % len(LINES)]
            colour, marker = COLOURS[k % len(COLOURS)], _marker(k) if counts else ""
            axes.plot(across, up, color=colour, linestyle=style, linewidth=1.8, marker=marker)
            keys.append((name, colour, marker, style))
        axes.set_ylim(bottom=-0.03 if counts else 0, top=1.03 if counts else None)
        legend(figure, keys, columns)
        return to_svg(figure, label, prefix)


def amounts(rows: pd.DataFrame, x: str, *, label: str, prefix: str) -> str:
    """A row for each `name` with its `value` as a dot and in figures, on a logarithmic axis."""
    names = [short(str(name), 36) for name in rows["name"]]
    left = min(190.0, 14 + _LETTER * max(map(len, names), default=4))
    with pens():
        figure = paper(_ROW * len(names) + 40)
        axes = place(figure, left, 36, WIDTH - left - 50, _ROW * len(names))
        powers = np.log10(rows["value"].to_numpy(dtype=float))
        axes.set(xscale="log", xlabel=x, ylim=(len(names) - 0.5, -0.5))
        axes.set_xlim(10.0 ** np.floor(powers.min() - 0.1), 10.0 ** np.ceil(powers.max() + 0.1))
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="x", color=RULE, linewidth=0.7)
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0, which="both")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter("")
        for y, value in enumerate(rows["value"]):
            axes.plot(value, y, MARKERS[0], color=COLOURS[0], markersize=6, markeredgecolor=PAPER)
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
            axes.annotate(shown, (value, y), (7, 0), textcoords="offset points", va="center", color=INK)
        return to_svg(figure, label, prefix)
