"""The figures of experiments (`safetyheads.experiments`): several panels on one sheet."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from safetyheads.plans import PLAIN
from safetyheads.report.figures.doses import dose_curves
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
from safetyheads.report.figures.maps import single_map
from safetyheads.statistics.distribution import cumulative, density
from safetyheads.statistics.doses import doses
from safetyheads.statistics.experiments import UTILITY, of_heads
from safetyheads.statistics.pairs import PLAN_KEYS

_ROW, _LETTER, _TITLE, _GAP = 17.0, 5.0, 20.0, 18.0
_SETTING = ["model", "dataset", "template", "decoding", "judge"]


class Panel(NamedTuple):
    """One of the figures on a sheet, with its title."""

    title: str
    svg: str


class Results(NamedTuple):
    """What figures of experiments are drawn from: the table of the experiment, and the study's own results."""

    table: pd.DataFrame
    rates: pd.DataFrame
    by_head: pd.DataFrame
    scores: Mapping[str, pd.DataFrame]


def experiment_figure(kind: str, results: Results, label: str, prefix: str) -> str:
    """The figure of an experiment of this kind as the text of one SVG. Equal results give equal text."""
    return sheet(_PANELS[kind](results, prefix), label)


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
            title.text = short(panels[at].title, 64)
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
        (name, COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)], "none") for k, name in enumerate(series)
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
            colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
            if marked:
                axes.plot(one["beside"], y, "|", color=INK, markersize=9, markeredgewidth=1.6, zorder=5)
            axes.plot([one["low"], one["high"]], [y, y], color=colour, linewidth=1.6, zorder=3)
            axes.plot(one["value"], y, marker, color=colour, markersize=6, markeredgecolor=PAPER, zorder=4)
        legend(figure, keys, columns)
        return to_svg(figure, label, prefix)


def curves(lines: Mapping[str, tuple[np.ndarray, np.ndarray]], x: str, y: str, *, label: str, prefix: str) -> str:
    """A line for each name: (x, y), where x has a logarithmic axis."""
    columns = 1 + (max(map(len, lines), default=0) <= 26)
    key = LEGEND_ROW * -(-len(lines) // columns) + 8
    with pens():
        figure = paper(190 + key)
        axes = place(figure, 46, 36, WIDTH - 58, 150)
        axes.set(xscale="log", xlabel=x, ylabel=y)
        axes.grid(color=RULE, linewidth=0.7)
        axes.tick_params(length=0, which="both")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        keys: list[tuple[str, str, str, LineStyle]] = []
        for k, (name, (across, up)) in enumerate(lines.items()):
            style = LINES[k % len(LINES)]
            axes.plot(across, up, color=COLOURS[k % len(COLOURS)], linestyle=style, linewidth=1.8)
            keys.append((name, COLOURS[k % len(COLOURS)], "", style))
        axes.set_ylim(bottom=0)
        legend(figure, keys, columns)
        return to_svg(figure, label, prefix)


def _asr(results: Results, prefix: str) -> list[Panel]:
    """A panel for each model and judge: a row for each data set, template and decoding, a dot for each plan."""
    panels = []
    for at, ((model, judge), rows) in enumerate(results.table.groupby(["model", "judge"], observed=True)):
        named = [", ".join(words) for words in zip(rows["dataset"], rows["template"], rows["decoding"])]
        of = ["plain model" if one == PLAIN else f"{plan}, {one}" for plan, one in zip(rows["plan"], rows["ablation"])]
        table = rows.assign(name=named, series=of, value=rows["asr"], beside=np.nan)
        table = table.assign(plain=table["plan"] != "none").sort_values(["name", "plain", "series"])
        table = table.assign(order=table["series"] != "plain model").sort_values("order", kind="stable")
        title = f"{model}, judge {judge}"
        svg = dots(table, "attack success rate", label=f"ASR: {title}", prefix=f"{prefix}-{at}")
        panels.append(Panel(title, svg))
    return panels


def _transfer(results: Results, prefix: str) -> list[Panel]:
    """A panel for each model, judge, ablation and kind of plan: a row for each data set that was measured."""
    rows = results.table[results.table["source"].notna()]
    groups = rows.assign(what=rows["plan"].str.partition("@")[0]).groupby(
        ["model", "what", "ablation", "template", "decoding", "judge"], observed=True
    )
    panels = []
    for at, (values, group) in enumerate(groups):
        title = ", ".join(map(str, values))
        series = "chosen on " + group["source"].astype(str)
        table = group.assign(name=group["dataset"], series=series, value=group["coherent_asr"], beside=group["control"])
        table = table.assign(low=group["coherent_low"], high=group["coherent_high"]).sort_values(["name", "series"])
        svg = dots(table, "coherent ASR", "control", label=f"Transfer: {title}", prefix=f"{prefix}-{at}")
        panels.append(Panel(title, svg))
    return panels


def _parameters(results: Results, prefix: str) -> list[Panel]:
    """A panel for each setting: a row for each plan and what share of the parameters it changes."""
    panels = []
    rows = results.table[results.table["plan"] != "none"]
    for at, (values, group) in enumerate(rows.groupby(_SETTING, observed=True)):
        title, group = ", ".join(map(str, values)), group.sort_values(["heads", "plan"])
        named = [f"{plan}, {share:.3%}" for plan, share in zip(group["plan"], group["share"])]
        table = group.assign(name=named, series=group["ablation"], value=group["coherent_asr"], beside=group["control"])
        table = table.assign(low=group["coherent_low"], high=group["coherent_high"])
        svg = dots(table, "coherent ASR", "control", label=f"Parameters: {title}", prefix=f"{prefix}-{at}")
        panels.append(Panel(title, svg))
    return panels


def _utility(results: Results, prefix: str) -> list[Panel]:
    """A panel for each model, metric and data set on which heads were chosen: a row for each task."""
    panels = []
    rows = results.table.drop_duplicates([*UTILITY, "n"])
    for at, (values, group) in enumerate(rows.groupby(["model", "metric", "dataset"], observed=True)):
        title = ", ".join(map(str, values))
        of = ["plain model" if a == PLAIN else f"{plan}, {a}" for plan, a in zip(group["plan"], group["ablation"])]
        table = group.assign(name=group["task"], series=of, value=group["accuracy"], beside=np.nan)
        table = table.assign(order=table["series"] != "plain model").sort_values(["order", "series", "name"])
        panels.append(Panel(title, dots(table, "accuracy", label=f"Utility: {title}", prefix=f"{prefix}-{at}")))
    return panels


def _doses(results: Results, prefix: str) -> list[Panel]:
    """A panel for each cell and ablation: what becomes of the answers by the number of ablated heads."""
    panels, keys = [], [*_SETTING, "ablation"]
    for at, (values, rows) in enumerate(doses(results.rates).groupby(keys, observed=True)):
        title = ", ".join(map(str, values))
        panels.append(Panel(title, dose_curves(rows, label=f"Dose curves: {title}", prefix=f"{prefix}-{at}")))
    return panels


def _maps(results: Results, prefix: str) -> list[Panel]:
    """A panel for each map."""
    panels = []
    for at, (values, heads) in enumerate(results.by_head.groupby(PLAN_KEYS, observed=True)):
        title, grid = ", ".join(map(str, values)), (int(heads["layer"].max()) + 1, int(heads["head"].max()) + 1)
        panels.append(Panel(title, single_map(heads, grid, label=f"Map: {title}", prefix=f"{prefix}-{at}")))
    return panels


def _overlap(results: Results, prefix: str) -> list[Panel]:
    """A panel for what differs, with the Jaccard index and the rank-biased overlap of each pair, beside chance."""
    panels: list[Panel] = []
    for at, (differ, rows) in enumerate(results.table.groupby("differ", observed=True)):
        same = [key for key in ("scores", "model", "dataset", "template", "ablation") if key != differ]
        named = [f"{one} | {other}" for one, other in zip(rows[str(differ)], rows["other"])]
        where = [", ".join(words) for words in rows[same].itertuples(index=False)]
        parts = [
            rows.assign(name=named, series=kind, value=rows[value], low=np.nan, high=np.nan, beside=rows[chance])
            for kind, value, chance in (
                ("Jaccard index of the first heads", "jaccard", "jaccard_by_chance"),
                ("rank-biased overlap", "rbo", "rbo_by_chance"),
            )
        ]
        for where_ in dict.fromkeys(where):
            chosen = [one == where_ for one in where]
            table = pd.concat([part[chosen] for part in parts])
            title = f"Other {differ}: {where_}"
            svg = dots(table, "overlap", "by chance", label=f"Overlap. {title}", prefix=f"{prefix}-{at}-{len(panels)}")
            panels.append(Panel(title, svg))
    return panels


def _distribution(results: Results, prefix: str) -> list[Panel]:
    """Two panels for each method and model: the cumulative distribution, and the density, a line for each cell."""
    groups: dict[tuple[str, str], dict[str, pd.Series]] = {}
    for (name, model, *rest), scores in of_heads(results.scores).items():
        groups.setdefault((name, model), {})[", ".join(rest)] = scores
    panels: list[Panel] = []
    drawn: tuple[tuple[str, Callable[..., tuple[np.ndarray, np.ndarray]], str], ...] = (
        ("cumulative distribution", cumulative, "share of heads"),
        ("density", density, "heads per factor of ten"),
    )
    for at, ((name, model), tables) in enumerate(groups.items()):
        for what, of, y in drawn:
            found = {of_cell: of(scores[scores > 0]) for of_cell, scores in tables.items()}
            title = f"{name}, {model}: {what}"
            svg = curves(found, "score above 0", y, label=title, prefix=f"{prefix}-{at}-{len(panels)}")
            panels.append(Panel(title, svg))
    return panels


_PANELS: dict[str, Callable[[Results, str], list[Panel]]] = {
    "asr": _asr,
    "doses": _doses,
    "transfer": _transfer,
    "parameters": _parameters,
    "utility": _utility,
    "maps": _maps,
    "overlap": _overlap,
    "distribution": _distribution,
}
