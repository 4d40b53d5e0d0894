"""What the page says and draws of a method's scores, where these are of heads or of the steps of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safetyheads.heads import Head
from safetyheads.methods import METHODS
from safetyheads.report import figures
from safetyheads.report.figures import ranked
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import LEADING, Table


@dataclass(frozen=True)
class OfMethod:
    """A method's name for people, a sentence on its scores in one cell, and a table of them."""

    method: str
    summary: str
    table: Table

    @property
    def name(self) -> str:
        """Of the figure, for a screen reader."""
        return "Sahara" if self.method == "sahara" else self.method

    def draw(self, rows: pd.DataFrame, grid: tuple[int, int], planted: Sequence[str], named: Mapping[str, str]) -> str:
        """The figure: the steps of a search, else a map of all heads."""
        if METHODS[self.method].searches:
            return figures.search_steps(rows, planted, METHODS[self.method].unit, **named)
        return figures.score_map(rows, grid, planted, METHODS[self.method].unit, **named)


def of_method(method: str, rows: pd.DataFrame, record: Mapping[str, Any]) -> OfMethod:
    """What is to be said of the scores of one cell. `record` is that of their file."""
    of = METHODS[method]
    if of.searches:
        table = choices(rows, of.unit)
        selected = ", ".join(f"{row[1]} ({row[2]})" for row in table.rows)
        return OfMethod(method, f"Selected, with scores in {of.unit}: {selected}.", table)
    table = best_heads(rows, of.unit)
    highest = f"Highest: {table.rows[0][0]}" if (rows["score"] > 0).any() else "No head has a score above 0"
    summary = f"{of.about[0].upper()}{of.about[1:]}. {highest}."
    word = (record.get("refusal") or {}).get("word")
    doubt = f" {word} These scores may be about something else." if word else ""
    return OfMethod(method, summary + recall_words(record.get("recall")) + doubt, table)


def choices(steps: pd.DataFrame, unit: str) -> Table:
    """For each step of a search the selected head and the best one that was not selected, with scores in degrees."""
    rows = []
    for step in sorted(int(step) for step in steps["step"].unique()):
        order = ranked(steps, step)
        chosen = order[order["selected"].astype(bool)]
        others = order[~order["selected"].astype(bool)]
        cells_of = [
            [str(rows["name"].iloc[0]), f"{rows['score'].iloc[0]:.3g}"] if len(rows) else ["–", "–"]
            for rows in (chosen, others)
        ]
        rows.append([f"step {step}", *cells_of[0], *cells_of[1], str(len(order))])
    columns = ["step", "selected", unit, "runner-up", unit, "candidates"]
    return Table("What each step selected", columns, rows, frozenset({2, 4, 5}))


def best_heads(scores: pd.DataFrame, unit: str) -> Table:
    """The `LEADING` heads of highest score, and how often the method's own resamples choose each, where there are any.

    `scores` has layer, head, score, support and selected, a row for each head.
    """
    order = scores.sort_values(["score", "layer", "head"], ascending=[False, True, True])
    resampled, chooses = bool(order["support"].notna().any()), bool(order["selected"].notna().any())
    rows = [
        [
            str(Head(int(row["layer"]), int(row["head"]))),
            f"{row['score']:.3g}",
            *([percent(row["support"])] if resampled else []),
            *(["yes" if row["selected"] else "no"] if chooses else []),
        ]
        for row in order.head(LEADING).to_dict("records")
    ]
    columns = [*("head", f"score ({unit})"), *["chosen in"] * resampled, *["own choice"] * chooses]
    return Table(
        f"The {len(rows)} leading heads of {len(order)}", columns, rows, frozenset({1, 2} if resampled else {1})
    )


def recall_words(recall: Mapping[str, Any] | None) -> str:
    """How many of the heads that really change most an estimate finds, in a sentence; empty where it was not tried."""
    start = "recall_at_"
    found_of = {int(key.removeprefix(start)): share for key, share in (recall or {}).items() if key.startswith(start)}
    tried = {first: share for first, share in sorted(found_of.items()) if share is not None}
    if recall is None or not tried:
        return ""
    found = ", ".join(f"{percent(share)} of the first {first}" for first, share in tried.items())
    ranks = "" if recall["spearman"] is None else f" (rank correlation {recall['spearman']:.2f})"
    return f" Of the heads by exact change on {recall['prompts']} prompts it finds {found}{ranks}."
