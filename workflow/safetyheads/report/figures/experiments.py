"""The figures of experiments (`safetyheads.experiments`): several panels on one sheet."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from safetyheads.plans import PLAIN
from safetyheads.report.figures.doses import dose_curves
from safetyheads.report.figures.maps import single_map
from safetyheads.report.figures.sheets import Panel, amounts, curves, dots, sheet
from safetyheads.statistics.checkpoints import KEYS as CURVE
from safetyheads.statistics.distribution import cumulative, density
from safetyheads.statistics.doses import doses
from safetyheads.statistics.experiments import of_heads
from safetyheads.statistics.pairs import PLAN_KEYS

_SETTING = ["model", "dataset", "template", "decoding", "judge"]


class Results(NamedTuple):
    """What figures of experiments are drawn from: the table of the experiment, and the study's own results."""

    table: pd.DataFrame
    rates: pd.DataFrame
    by_head: pd.DataFrame
    scores: Mapping[str, pd.DataFrame]


def experiment_figure(kind: str, results: Results, label: str, prefix: str) -> str:
    """The figure of an experiment of this kind as the text of one SVG. Equal results give equal text."""
    return sheet(_PANELS[kind](results, prefix), label)


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
    """A panel for each model, metric, and data set and template with which heads were chosen: a row for each task."""
    panels, keys = [], ["model", "metric", "dataset", "template"]
    for at, (values, group) in enumerate(results.table.groupby(keys, observed=True)):
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


def _checkpoints(results: Results, prefix: str) -> list[Panel]:
    """A panel for each two models and each dose curve that both have: the coherent ASR by the number of heads."""
    points, panels = doses(results.rates), []
    for at, row in enumerate(results.table.to_dict("records")):
        curve = points[(points[CURVE] == [row[key] for key in CURVE]).all(axis=1)]
        lines = {
            model: (rows["n_heads"].to_numpy(), rows["coherent_asr"].to_numpy())
            for model in (str(row["before"]), str(row["after"]))
            for rows in [curve[curve["model"] == model]]
        }
        method = row["method"] if row["source"] == row["dataset"] else f"{row['method']}@{row['source']}"
        title = ", ".join(map(str, (method, *(row[key] for key in CURVE if key not in ("method", "source")))))
        known, label = not pd.isna(row["rank_correlation"]), f"Checkpoints: {title}"
        x = "heads ablated" + (f" (rank correlation of scores {row['rank_correlation']:.2f})" if known else "")
        svg = curves(lines, x, "coherent ASR", counts=True, label=label, prefix=f"{prefix}-{at}")
        panels.append(Panel(title, svg))
    return panels


def _hours(results: Results, prefix: str) -> list[Panel]:
    """A panel for each model and device: a row for what was computed, in hours over all data sets and ablations."""
    panels = []
    known = results.table[results.table["hours"] > 0]
    for at, (values, rows) in enumerate(known.groupby(["model", "device"], observed=True)):
        title, sums = ", ".join(map(str, values)), rows.groupby("work", sort=False)["hours"].sum()
        table = pd.DataFrame({"name": sums.index, "value": sums.to_numpy()})
        svg = amounts(table, "hours", label=f"Hours: {title}", prefix=f"{prefix}-{at}")
        panels.append(Panel(title, svg))
    return panels


_PANELS: dict[str, Callable[[Results, str], list[Panel]]] = {
    "asr": _asr,
    "doses": _doses,
    "transfer": _transfer,
    "parameters": _parameters,
    "hours": _hours,
    "checkpoints": _checkpoints,
    "utility": _utility,
    "maps": _maps,
    "overlap": _overlap,
    "distribution": _distribution,
}
