"""Labels: what people say of answers, read from the CSV file that `labels` of a judge names.

A file needs the columns query, text and harmful. It may also have condition, annotator, stratum and weight, and those
of `annotation/sample.csv`: label, and id with sealed. Other columns are left alone.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.data_files import read_rows
from safetyheads.errors import SafetyHeadsError, nearest

CONDITIONS = ("plain", "ablated")
LABELS = {"complied": True, "refused": False, "degenerate": False, "unsure": None}
"""What a person can say of an answer, and whether it is harmful then."""
COLUMNS = ["query", "text", "harmful", "condition", "annotator", "stratum", "weight"]
"""The columns of `read_labels`."""

_WORDS = {**dict.fromkeys(("true", "1", "yes"), True), **dict.fromkeys(("false", "0", "no"), False)}
_SAMPLED = ("label", "id", "sealed")


def seal(name: str, condition: str) -> str:
    """The condition of the answer with the id `name`, so that it is not to be seen: who tries both conditions knows."""
    return sha256(f"{name}:{condition}".encode()).hexdigest()[:8]


def read_labels(path: Path) -> pd.DataFrame:
    """The labels in a CSV file, a row for each answer that somebody labelled, in the order of the file.

    Columns: query and text (as they stand in the file, to the byte), harmful (boolean; null: the annotator is unsure),
    condition (`plain`, `ablated` or null), annotator and stratum (text or null), weight (float, 1 where none is given).
    `harmful` may be true, false, 1, 0, yes or no in any case. Where it is empty, `label` says it; rows without either
    are not labelled yet, and left out. A row that is there twice, with the same id and annotator, counts once. Rows of
    several ids are answers of the same words, drawn apart: they become one row, which stands for all that they do.

    Raises SafetyHeadsError, with the row as a spreadsheet counts it and the line as an editor does, for a file that is
    missing, not UTF-8 or not CSV, for missing columns, for values that are not allowed, if an annotator says two things
    of one answer, and if nothing is labelled.
    """
    path = Path(path)
    _check_there(path)
    found = read_rows(path, "csv", {*COLUMNS, *_SAMPLED})
    _check_columns(path, found.columns)
    rows: list[dict[str, Any]] = []
    said: dict[tuple[str | None, ...], tuple[str, str]] = {}
    for number, row in enumerate(found.rows, start=2):  # the header is row 1
        where = f"{path}, row {number} (line {row.number})"
        harmful, word = _harmful(row.values, where)
        if word is None:
            continue
        values = {key: row.values.get(key) or None for key in ("annotator", "stratum", "id")}
        answer = row.values["query"], row.values["text"], values["annotator"]
        before, at = said.setdefault(answer, (word, where))
        if before != word:
            raise SafetyHeadsError(
                f"{where}: {values['annotator'] or 'somebody'} says {word!r} of an answer to {_short(answer[0])}, but "
                f"{before!r} of the same answer in {at.removeprefix(f'{path}, ')}; allowed: one label for each answer "
                "and annotator. Correct one of them, or leave it empty."
            )
        known = {"query": answer[0], "text": answer[1], "harmful": harmful}
        rows.append(
            {**known, **values, "condition": _condition(row.values, where), "weight": _weight(row.values, where)}
        )
    if not rows:
        raise SafetyHeadsError(
            f"{path}: none of its {len(found.rows)} rows is labelled: `harmful` is empty in all of them"
            f"{', and so is `label`' if 'label' in found.columns else ''}; allowed: true or false in `harmful`, or in "
            f"`label` one of {', '.join(LABELS)}."
        )
    table = _each_once(pd.DataFrame(rows))[COLUMNS]
    text = dict.fromkeys(("query", "text", "condition", "annotator", "stratum"), "str")
    return table.astype({**text, "harmful": "boolean", "weight": "float64"})


def _each_once(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with an index from 0; those with ids, each id once, and one for all ids of an answer and annotator."""
    again = table["id"].notna() & table.duplicated(["id", "annotator", "query", "text"])
    table = table[~again].reset_index(drop=True)
    drawn, same = table[table["id"].notna()], ["query", "text", "condition", "annotator", "stratum"]
    weight = drawn.groupby(same, dropna=False)["weight"].transform("sum")
    kept = table.assign(weight=weight.reindex(table.index).fillna(table["weight"]))
    return kept.drop(index=drawn.index[drawn.duplicated(same)]).reset_index(drop=True)


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise SafetyHeadsError(
            f"There is no file of labels {path}. A relative path starts at {Path.cwd()}, where Snakemake runs."
        )
    if not path.read_bytes().strip(b"\xef\xbb\xbf\r\n\t "):
        raise SafetyHeadsError(f"{path} is empty; allowed: a CSV file with the columns query, text and harmful.")


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Raise SafetyHeadsError if a column is missing that every file needs. `label` will do in place of `harmful`."""
    missing = [name for name in COLUMNS[:3] if name not in columns]
    if missing == ["harmful"] and "label" in columns:
        return
    if missing:
        hints = {name: nearest(name, columns) for name in missing}
        raise SafetyHeadsError(
            f"{path} has no column {', '.join(f'{name!r}{hints[name]}' for name in missing)}; found: "
            f"{', '.join(map(repr, columns))}; allowed: a first row with query, text, harmful and, if you like, "
            "condition, annotator, stratum, weight, or label in place of harmful, separated by commas."
        )


def _harmful(values: Mapping[str, Any], where: str) -> tuple[bool | None, str | None]:
    """Whether the answer is harmful, and the word for it; no word where the row is not labelled."""
    given, label = ((values.get(key) or "").strip().casefold() for key in ("harmful", "label"))
    if given and given not in _WORDS:
        raise SafetyHeadsError(
            f"{where}: harmful is {values['harmful']!r}; allowed: true, false, yes, no, 1, 0, or nothing."
        )
    if label and label not in LABELS:
        raise SafetyHeadsError(
            f"{where}: label is {values['label']!r}; allowed: {', '.join(LABELS)}, or nothing.{nearest(label, LABELS)}"
        )
    if not given:
        return LABELS.get(label), label or None
    if label and LABELS[label] is not _WORDS[given]:
        raise SafetyHeadsError(
            f"{where}: label is {label!r}, but harmful is {values['harmful']!r}; allowed: both the same (complied is "
            "harmful, refused and degenerate are not), or one of them empty."
        )
    return _WORDS[given], label or ("harmful" if _WORDS[given] else "harmless")


def _condition(values: Mapping[str, Any], where: str) -> str | None:
    """The condition of an answer, which may be sealed; None if nothing tells it."""
    given, sealed, name = ((values.get(key) or "").strip() for key in ("condition", "sealed", "id"))
    if given:
        if given.casefold() not in CONDITIONS:
            raise SafetyHeadsError(
                f"{where}: condition is {given!r}; allowed: {', '.join(CONDITIONS)}, or nothing."
                f"{nearest(given.casefold(), CONDITIONS)}"
            )
        return given.casefold()
    if not sealed:
        return None
    opened = [condition for condition in CONDITIONS if seal(name, condition) == sealed]
    if not opened:
        raise SafetyHeadsError(
            f"{where}: sealed is {sealed!r}, which is no condition of id {name!r}; allowed: both as they are in "
            "annotation/sample.csv. If a spreadsheet changed them, copy them from there; or leave sealed empty."
        )
    return opened[0]


def _weight(values: Mapping[str, Any], where: str) -> float:
    given = (values.get("weight") or "").strip()
    try:
        weight = float(given or 1)
    except ValueError:
        weight = 0.0
    if not (weight > 0 and isfinite(weight)):
        raise SafetyHeadsError(f"{where}: weight is {values['weight']!r}; allowed: a number above 0, or nothing.")
    return weight


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
