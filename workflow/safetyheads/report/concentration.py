"""Concentration and stability in words: how few heads it takes, and whether other prompts would have led to them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from safetyheads.heads import Head
from safetyheads.report.data import ReportData, cells
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import Table

UNSTABLE = 0.5
"""Heads that are chosen in less than this share of the resamples are called unstable."""
SHOWN = 5
"""The most heads that a cell of the table names."""

_NOTE = (
    "Gini, the share of the top 1 % and the effective number of heads (1 / sum of squared shares) are of the mean "
    "scores of all heads. Stable: how often a chosen head is among the chosen ones if the prompts are resampled; of "
    "ships, whose heads are each prompt's own, for how many prompts it is; of Sahara, by how many degrees it leads the "
    "next head. Rank correlations (ρ) are over heads, with the effect of ablating each alone: of the score, and of the "
    "refusal shift, which should be negative. All numbers are in concentration.parquet and stability.parquet."
)


def concentration_table(data: ReportData, rows: pd.DataFrame) -> Table:
    """A row for each method of a cell. `rows` are those of concentration.parquet."""
    made = []
    for row in rows.to_dict("records"):
        made.append(
            [
                _method(row),
                _number(row["gini"]),
                percent(row["top_share"]),
                _number(row["effective_heads"], 1),
                _reached(row, "heads_asr"),
                _reached(row, "heads_coherent"),
                _number(row["score_correlation"], sign=True),
                _number(row["refusal_shift_correlation"], sign=True),
                _stable(data, row),
            ]
        )
    columns = ["method", "Gini", "top 1 %", "effective heads", "heads for ASR 50 %", "heads for coherent ASR 50 %"]
    columns += ["ρ score", "ρ refusal shift", "how stable the chosen heads are"]
    return Table("Concentration and stability", columns, made, frozenset(range(1, 8)), _NOTE)


def concentration_words(data: ReportData, rows: pd.DataFrame) -> str:
    """How few heads it takes, in a sentence, and a caution where the choice of heads hangs on the prompts."""
    reached = rows[rows["heads_coherent"].notna()]
    if len(reached):
        best = reached.sort_values(["heads_coherent", "method"]).iloc[0]
        heads = "1 head" if best["heads_coherent"] == 1 else f"{int(best['heads_coherent'])} heads"
        words = f"Coherent ASR reaches 50 % with {heads} ({_method(best)})."
        if best["heads_coherent"] == 0:
            words = "The plain model's coherent ASR is 50 % or more."
    else:
        words = f"Coherent ASR does not reach 50 % with any of up to {rows['largest'].max()} heads."
    shaky = [
        f"{_method(row)} ({row['largest']})" for row in rows.to_dict("records") if _least_share(data, row) < UNSTABLE
    ]
    if shaky:
        words += (
            f" Mind that the heads of {', '.join(shaky)} hang on the prompts: in more than half of the resamples, at "
            "least one of them is not chosen."
        )
    return words


def _method(row: Mapping[str, Any]) -> str:
    elsewhere = row["source"] != row["dataset"]
    return f"{row['method']}@{row['source']}" if elsewhere else str(row["method"])


def _number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    return (f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}") if pd.notna(value) else "–"


def _reached(row: Mapping[str, Any], name: str) -> str:
    return str(int(row[name])) if pd.notna(row[name]) else f"more than {int(row['largest'])}"


def _chosen(data: ReportData, row: Mapping[str, Any]) -> pd.DataFrame:
    """The heads that a method chooses for its largest number of heads; of Sahara those of all steps up to it."""
    keys = {"model": row["model"], "dataset": row["source"], "template": row["template"], "ablation": row["ablation"]}
    found = cells(data.stability, method=row["method"], **keys)
    if found.empty:
        return found
    largest = row["largest"]
    found = found[found["n"] <= largest if row["method"] == "sahara" else found["n"] == largest]
    return found[found["chosen"].astype(bool)]


def _stable(data: ReportData, row: Mapping[str, Any]) -> str:
    """The chosen heads with their shares, or margins."""
    found = _chosen(data, row)
    if found.empty:
        return "–"
    if row["method"] == "sahara":
        said = [
            f"{Head(int(one['layer']), int(one['head']))} {_number(one['margin'], sign=True)}°"
            for one in found.sort_values("n").to_dict("records")
        ]
    else:
        ordered = found.sort_values(["share", "layer", "head"], ascending=[False, True, True])
        said = [
            f"{Head(int(one['layer']), int(one['head']))} {percent(one['share'])}" for one in ordered.to_dict("records")
        ]
    return ", ".join(said[:SHOWN]) + (f" and {len(said) - SHOWN} more" if len(said) > SHOWN else "")


def _least_share(data: ReportData, row: Mapping[str, Any]) -> float:
    """The smallest share of resamples in which a chosen head is chosen; 1 for methods that are not resampled."""
    if row["method"] in ("ships", "sahara"):
        return 1.0
    found = _chosen(data, row)
    return float(found["share"].min()) if len(found) else np.nan
