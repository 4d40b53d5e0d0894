"""The section of the page on experiments: each one's figure and numbers, and the paper's numbers beside ours."""

from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from safetyheads.experiments import EXPERIMENTS
from safetyheads.report.data import ReportData
from safetyheads.report.tables import Table

ROWS = 20
"""The most rows of an experiment's table on the page; its file has all."""


@dataclass(frozen=True)
class ExperimentCard:
    """An experiment: the study's name, what it shows, its figure and its numbers."""

    name: str
    about: str
    svg: Markup
    table: Table


@dataclass(frozen=True)
class ExperimentsSection:
    """All experiments of a run, a sentence on the paper's numbers, and those of them that were measured."""

    cards: list[ExperimentCard]
    words: str
    beside: Table


def experiments_section(data: ReportData) -> ExperimentsSection | None:
    """The section; None where no study is an experiment."""
    if not data.experiments:
        return None
    cards = [
        ExperimentCard(name, EXPERIMENTS[one.kind].about, Markup(one.svg), _numbers(name, one.table))
        for name, one in data.experiments.items()
    ]
    return ExperimentsSection(cards, agreement_words(data.paper_vs_ours), beside_table(data.paper_vs_ours))


def _numbers(name: str, table: pd.DataFrame) -> Table:
    """The first rows of an experiment's table. What all rows agree in is said once, below."""
    shown = table.dropna(axis="columns", how="all")
    words = [key for key in shown if shown[key].dtype.kind != "f"]
    same = [key for key in words if len(shown) > 1 and shown[key].nunique(dropna=False) == 1]
    rest = shown.drop(columns=same)
    numbers = frozenset(at for at, key in enumerate(rest) if rest[key].dtype.kind in "ifu")
    rows = [[_text(value) for value in row] for row in rest.head(ROWS).itertuples(index=False)]
    note = "; ".join(f"{key} {shown[key].iloc[0]}" for key in same)
    note = f"In all rows: {note}. " if note else ""
    note += f"All {len(table):,} rows: experiments/{name}/table.csv." if len(table) > ROWS else ""
    return Table(f"Numbers of {name}", [str(key).replace("_", " ") for key in rest], rows, numbers, note.strip())


def agreement_words(table: pd.DataFrame) -> str:
    """How many of the published numbers were measured, and how many of these agree."""
    of_paper = len(
        table[["place", "quantity", "model", "dataset", "template", "ablation", "plan", "about"]].drop_duplicates()
    )
    run = table[table["agreement"] != "not run"]
    counts = run["agreement"].value_counts()
    if run.empty:
        return f"None of the paper's {of_paper} numbers was measured here: they are about other models or data sets."
    found = ", ".join(f"{counts[name]} {name}" for name in ("inside", "outside", "not comparable") if name in counts)
    return f"Of the paper's {of_paper} numbers, cells of this run measure some: {found} (the 95 % interval)."


def beside_table(table: pd.DataFrame) -> Table:
    """The published numbers that were measured, each beside the measured one, its interval and the coherent one."""
    run = table[table["agreement"] != "not run"]
    rows = [
        [
            *(str(row["place"]), str(row["quantity"]).replace("_", " "), f"{row['our_model']}, {row['our_dataset']}"),
            ", ".join(
                str(row[key]) for key in ("plan", "our_ablation", "our_template", "decoding", "judge") if row[key]
            ),
            *(_text(row["paper"]), _text(row["ours"]), f"{_text(row['low'])} to {_text(row['high'])}"),
            *(_text(row["coherent"]), f"{row['agreement']}{': ' if row['why'] else ''}{row['why'] or ''}"),
        ]
        for row in run.to_dict("records")
    ]
    columns = ["place", "quantity", "measured on", "cell", "paper", "ours", "95 %", "coherent", "agreement"]
    return Table("The paper's numbers beside ours", columns, rows, frozenset({4, 5, 6, 7}))


def _text(value: object) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
