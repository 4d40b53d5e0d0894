"""Concentration and stability in words: how few heads it takes, and whether other prompts would have led to them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from safetyheads.heads import Head
from safetyheads.methods import METHODS
from safetyheads.report.data import ReportData, cells
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import Table

UNSTABLE = 0.5
"""Heads that are chosen in less than this share of the resamples are called unstable."""
SHOWN = 5
"""The most heads that a line of the table names."""

Row = Mapping[str, Any]

_NOTE = (
    "Gini (0: all heads alike, near 1: one head has all), the share of the highest 1 % of heads and the effective "
    "number of heads (1 / sum of squared shares) are of the mean scores of all heads; of a contrast, of what is above "
    "0. How stable: for each number of heads, how often a chosen head is chosen again if the prompts are resampled; of "
    "ships, whose heads are each prompt's own, for how many prompts it is; of knockouts, if the masks are; of mask, in "
    "how many starts; of methods that search, by how much each step's head leads the next one, in the unit of its "
    "scores. "
)
_OF_RANKS = (
    "Rank correlations (Spearman's ρ) are over all heads, with what ablating each alone does to the coherent ASR. ρ "
    "score: 1 if heads that score higher set more answers free. ρ refusal shift: below 0 if the heads without which a "
    "refusal is less likely to begin are those without which requests are answered; ρ answer shift: above 0 likewise. "
    "Heads whose ablation does the same are tied, so where few do anything no ranking reaches 1: “best possible” is "
    "what a perfect one would have. "
)
_OWN = "the method's own draws: in more than half of its resampled masks, or of its starts"
_FILES = "All numbers, those of the ASR too, are in concentration.parquet and stability.parquet."


def concentration_table(data: ReportData, rows: pd.DataFrame) -> Table:
    """A row for each method of a cell. `rows` are those of concentration.parquet.

    Columns in which no row has a value are left out.
    """
    found = rows.to_dict("records")
    written = {name: [write(row) for row in found] for name, write in _COLUMNS.items()}
    written = {name: column for name, column in written.items() if set(column) != {"–"}}
    note = _NOTE + _OF_RANKS * any(name.startswith("ρ") for name in written) + _FILES
    written["how stable the chosen heads are"] = [_stable(data, row) for row in found]
    made = [[_method(row), *values] for row, values in zip(found, zip(*written.values()))]
    return Table("Concentration and stability", ["method", *written], made, frozenset(range(1, len(written))), note)


def concentration_words(data: ReportData, rows: pd.DataFrame) -> str:
    """How few heads it takes, in a sentence, and a caution where the choice of heads hangs on the prompts."""
    least = rows["heads_coherent"].min()
    if pd.isna(least):
        words = f"Coherent ASR does not reach 50 % with any of up to {rows['largest'].max()} heads."
    elif least == 0:
        words = "The plain model's coherent ASR is 50 % or more."
    else:
        best = rows[rows["heads_coherent"] == least].sort_values(["method", "source"]).to_dict("records")
        heads = "1 head" if least == 1 else f"{int(least)} heads"
        own = ", for each prompt"
        names = "; ".join(_method(row) + own * (row["method"] == "ships") for row in best)
        words = f"Coherent ASR reaches 50 % with {heads} ({names})."
    for of_prompts, hang in ((True, "the prompts: in more than half of the resamples"), (False, _OWN)):
        found = [row for row in rows.to_dict("records") if _resamples_prompts(row) == of_prompts]
        if shaky := [name for row in found for name in _unstable(data, row)]:
            words += f" Mind that the heads of {', '.join(shaky)} hang on {hang}, at least one of them is not chosen."
    return words


def _resamples_prompts(row: Row) -> bool:
    """Whether the stability of a method is that of resampled prompts; else it is of the method's own resamples."""
    return METHODS[row["method"]].scores == "ships"


def _method(row: Row, n: str = "") -> str:
    """A method with the data set that its heads are chosen on, if that is another one; with `n`, the plan."""
    elsewhere = row["source"] != row["dataset"]
    return f"{row['method']}{n}@{row['source']}" if elsewhere else f"{row['method']}{n}"


def _written(name: str, digits: int = 2, *, sign: bool = False) -> Callable[[Row], str]:
    return lambda row: _number(row[name], digits, sign=sign)


def _number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    return (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}") if pd.notna(value) else "–"


def _reached(name: str) -> Callable[[Row], str]:
    return lambda row: str(int(row[name])) if pd.notna(row[name]) else f"more than {int(row['largest'])}"


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "Gini": _written("gini"),
    "top 1\u00a0%": lambda row: percent(row["top_share"]),
    "effective heads": lambda row: f"{_number(row['effective_heads'], 1)} of {int(row['n_heads']):,}",
    "heads for ASR 50\u00a0%": _reached("heads_asr"),
    "heads for coherent ASR 50\u00a0%": _reached("heads_coherent"),
    "ρ score": _written("score_correlation", sign=True),
    "ρ refusal shift": _written("refusal_shift_correlation", sign=True),
    "ρ answer shift": _written("answer_shift_correlation", sign=True),
    "ρ best possible": _written("highest_correlation", sign=True),
}
"""The columns of the table between the method and its heads, and how each is written."""


def _chosen(data: ReportData, row: Row) -> dict[int, pd.DataFrame]:
    """The heads that a method chooses, by their number, the most certain first; of Sahara the head of each step.

    Those of ships, whose heads are each prompt's own, may be more than their number.
    """
    keys = {"model": row["model"], "dataset": row["source"], "template": row["template"], "ablation": row["ablation"]}
    found = cells(data.stability, method=row["method"], **keys)
    if found.empty:
        return {}
    found = found[found["chosen"].astype(bool) & (found["n"] <= row["largest"])]
    ordered = found.sort_values(["n", "share", "layer", "head"], ascending=[True, False, True, True])
    return {int(str(n)): heads for n, heads in ordered.groupby("n")}


def _stable(data: ReportData, row: Row) -> str:
    """The chosen heads with their shares, or margins, in a line for each number of heads."""
    lines = []
    for n, heads in _chosen(data, row).items():
        said = [
            f"{Head(int(one['layer']), int(one['head']))}\u00a0"
            + (_margin(row["method"], one["margin"]) if METHODS[row["method"]].searches else percent(one["share"]))
            for one in heads.to_dict("records")
        ]
        more = f" and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        lines.append(f"{n}: {', '.join(said[:SHOWN])}{more}")
    return "\n".join(lines) or "–"


def _margin(method: str, margin: float) -> str:
    unit = METHODS[method].unit
    return _number(margin, sign=True) + ("°" if unit == "degrees" else f"\u00a0{unit}")


def _unstable(data: ReportData, row: Row) -> list[str]:
    """The plans of a method some head of which is chosen in less than `UNSTABLE` of the resamples."""
    if METHODS[row["method"]].per_prompt or METHODS[row["method"]].searches:  # nothing is resampled
        return []
    least = {n: float(np.min(heads["share"])) for n, heads in _chosen(data, row).items()}
    return [_method(row, f"-{n}") for n, share in least.items() if share < UNSTABLE]
