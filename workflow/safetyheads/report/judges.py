"""What the page says about judges: how they agree with people, and with each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import pandas as pd
from markupsafe import Markup

from safetyheads.report import figures
from safetyheads.report.caveats import number
from safetyheads.report.data import ReportData, cells, groups
from safetyheads.report.figures.drawing import percent
from safetyheads.report.tables import Table

LEAST_FALL = 0.2
"""A kappa on ablated text that is lower by more than this than on plain text is spoken of."""

_SETTING = ("model", "dataset", "template", "decoding", "judge")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure with a title and a sentence on it."""

    title: str
    svg: Markup
    summary: str


@dataclass(frozen=True)
class JudgesSection:
    """What is shown of judges. `words` are sentences on how they agree with people."""

    words: list[str]
    tables: list[Table]
    corrected: list[Figure]
    kappas: list[Figure]


def judges_section(data: ReportData) -> JudgesSection | None:
    """The section on judges; None where no judge has labels and no answers have several judges."""
    made = [calibration_table(data.calibration)] if len(data.calibration) else []
    kappas: list[Figure] = []
    for (model, condition), rows in groups(data.agreement, ("model", "condition")).items():
        of_all = cells(rows, outcome="all")
        made += [kappa_table(model, condition, of_all), disagreement_table(model, condition, rows)]
        kappas.append(_kappas(model, condition, of_all, f"kappa-{len(kappas) + 1}"))
    words = calibration_words(data.calibration)
    return JudgesSection(words, made, _corrected(data), kappas) if made else None


def _kappas(model: str, condition: str, agreement: pd.DataFrame, prefix: str) -> Figure:
    known = agreement[agreement["kappa"].notna()]
    if known.empty:
        summary = "Kappa is not defined: the judges say the same word of all answers."
    else:
        pair = known.loc[known["kappa"].idxmin()]
        summary = f"Least agreement: {pair['first']} and {pair['second']}, kappa {pair['kappa']:.2f}."
    title = f"{model}, {condition} text"
    svg = figures.kappa_matrix(agreement, label=f"Kappa of judges: {title}. {summary}", prefix=prefix)
    return Figure(f"Kappa of judges, {title}", Markup(svg), summary)


def _corrected(data: ReportData) -> list[Figure]:
    """For each setting with corrected rates a figure of the plain model's, and those of plans with one set of heads."""
    if "corrected_asr" not in data.rates:
        return []
    known = data.rates[data.rates["corrected_asr"].notna() & (data.rates["variant"] == data.rates["plan"])]
    made: list[Figure] = []
    for key, rows in groups(known, _SETTING).items():
        moved = rows["corrected_asr"] - rows["asr"]
        most = rows.loc[moved.abs().idxmax()]
        summary = f"Moved most: {most['plan']}, from {percent(most['asr'])} to {percent(most['corrected_asr'])}."
        title, prefix = ", ".join(key), f"corrected-{len(made) + 1}"
        svg = figures.corrected_strip(rows, label=f"Corrected rates: {title}. {summary}", prefix=prefix)
        made.append(Figure(f"Corrected for the judge: {title}", Markup(svg), summary))
    return made


def calibration_table(calibration: pd.DataFrame) -> Table:
    """Each judge beside people, on all labelled answers and on those of each condition."""
    rows = [
        [
            str(row["judge"]),
            str(row["condition"]),
            f"{int(row['n'])}" + (f" ({int(row['unsure'])} unsure)" if row["unsure"] else ""),
            " / ".join(str(int(row[name])) for name in ("tp", "fn", "fp", "tn")),
            _rate(row, "sensitivity"),
            _rate(row, "specificity"),
            _kappa(row, "kappa"),
            _people(row),
            _corrected_by(row),
        ]
        for row in calibration.to_dict("records")
    ]
    columns = ["judge", "text", "labelled answers", "found / missed / false alarms / passed"]
    columns += ["sensitivity", "specificity", "kappa with people", "people's kappa", "corrected by"]
    note = (
        "Sensitivity is the share of the answers harmful to people that the judge calls harmful, specificity the share "
        "of harmless ones that it calls harmless, in brackets the 95 % interval. Rates and kappas count each labelled "
        "answer as often as it stands for others. Several labels of one answer are decided by majority; people's kappa "
        "goes by pairs of labels of one answer. All numbers "
        "are in calibration.parquet, beside the folder of this page."
    )
    return Table("Judges beside people", columns, rows, frozenset(range(2, 8)), note)


def calibration_words(calibration: pd.DataFrame) -> list[str]:
    """Sentences on each judge with labels: what it misses and what it takes for harmful, and where it gets worse."""
    said = []
    for (judge,), rows in groups(calibration, ["judge"]).items():
        of = {str(row["condition"]): row for row in rows.to_dict("records")}
        whole = of["all"]
        words = [
            f"{judge} misses {_rest(whole, 'sensitivity')} of the answers that are harmful to people, and calls "
            f"{_rest(whole, 'specificity')} of the harmless ones harmful."
        ]
        before, after = (number(of[name], "kappa") if name in of else float("nan") for name in ("plain", "ablated"))
        if after < before - LEAST_FALL:
            words.append(
                f"It agrees less with people on ablated text (kappa {after:.2f}) than on plain text ({before:.2f}), so "
                "a part of a raw effect may be the judge's errors."
            )
        words += [
            f"Rates of {name} text are {_how_corrected(row)} ({row['reason']})."
            for name, row in of.items()
            if name != "all" and isinstance(row["reason"], str)
        ]
        if len(of) == 1 and not isinstance(whole["corrected_by"], str):
            words.append(f"Its rates are not corrected: {whole['reason']}.")
        said.append(" ".join(words))
    return said


def _how_corrected(row: Row) -> str:
    if not isinstance(row["corrected_by"], str):
        return "not corrected"
    return "corrected by the judge's errors on all labelled text, so they may differ from what its own labels say"


def kappa_table(model: str, condition: str, agreement: pd.DataFrame) -> Table:
    """The matrix of Cohen's kappa of all judges of a model and condition, from the rows of outcome `all`."""
    of = {(str(row["first"]), str(row["second"])): row for row in agreement.to_dict("records")}
    judges = sorted({name for pair in of for name in pair})
    rows = [[one, *(_cell(of, one, other) for other in judges)] for one in judges]
    note = (
        "Cohen's kappa, and the share of answers that both judge alike. A dash: the kappa is not defined, because both "
        "say the same word of all answers."
    )
    return Table(
        f"Judges beside each other: {model}, {condition} text",
        ["judge", *judges],
        rows,
        frozenset(range(1, len(judges) + 1)),
        note,
    )


def disagreement_table(model: str, condition: str, agreement: pd.DataFrame) -> Table:
    """On which answers pairs of judges disagree, by outcome, the outcomes with most disagreement first.

    Outcomes on which a pair agrees everywhere are left out.
    """
    rows = []
    by_outcome = agreement[agreement["outcome"] != "all"]
    for (first, second), pair in groups(by_outcome, ("first", "second")).items():
        apart = pair.assign(apart=pair["only_first"] + pair["only_second"]).query("apart > 0")
        for row in apart.sort_values(["apart", "outcome"], ascending=[False, True]).to_dict("records"):
            shares = [
                percent(row[name] / row["n"]) for name in ("only_first", "only_second", "both_harmful", "neither")
            ]
            rows.append([f"{first}, {second}", str(row["outcome"]), f"{int(row['n']):,}", *shares])
    columns = ["judges", "outcome by the first", "answers", "only the first", "only the second", "both", "neither"]
    note = (
        "The last four columns are shares of the answers with that outcome that are called harmful. Outcomes on which "
        "two judges agree everywhere are left out."
    )
    return Table(f"Where judges disagree: {model}, {condition} text", columns, rows, frozenset(range(2, 7)), note)


def _rate(row: Row, name: str) -> str:
    value = number(row, name)
    if not isfinite(value):
        return "–"
    return f"{percent(value)}\n({percent(number(row, f'{name}_low'))} – {percent(number(row, f'{name}_high'))})"


def _rest(row: Row, name: str) -> str:
    value = number(row, name)
    return percent(1 - value) if isfinite(value) else "an unknown share"


def _kappa(row: Row, name: str) -> str:
    value = number(row, name)
    return f"{value:.2f}".replace("-0.00", "0.00") if isfinite(value) else "–"


def _people(row: Row) -> str:
    pairs = int(row["pairs"])
    return f"{_kappa(row, 'people_kappa')}\n({pairs} pairs)" if pairs else "–"


def _corrected_by(row: Row) -> str:
    return f"labels of {row['corrected_by']} text" if isinstance(row["corrected_by"], str) else "not corrected"


def _cell(of: Mapping[tuple[str, str], Row], one: str, other: str) -> str:
    if one == other:
        return ""
    row = of.get((min(one, other), max(one, other)))
    return "–" if row is None else f"{_kappa(row, 'kappa')}\n({percent(float(row['agreement']))})"
