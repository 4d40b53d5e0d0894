"""The labels of a judge: where they are, and how they are read."""

from pathlib import Path

import pandas as pd

from safetyheads.config.load import Config
from safetyheads.data_files import read_rows
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.labels import COLUMNS, read_labels
from safetyheads.judges.recorded import WORDS
from safetyheads.models.download import verify


def labels_file(settings: Config, judge: str, downloaded: Path | None) -> Path:
    """The file with the labels of a judge: a CSV file, or that of a data set, `downloaded` unless it is the user's."""
    named = str(settings.judge(judge).labels)
    if named not in settings.known("datasets"):
        return Path(named).expanduser()
    return downloaded or Path(str(settings.dataset(named).path)).expanduser()


def labels_of(settings: Config, judge: str, downloaded: Path | None) -> pd.DataFrame:
    """The labels of a judge, a row for each answer and annotator, with the columns of `judges.labels.read_labels`.

    They are in a CSV file, or in a data set with `answer`, whose file is `downloaded` unless it is the user's own.
    Raises SafetyHeadsError for a file that cannot be read.
    """
    named, file = str(settings.judge(judge).labels), labels_file(settings, judge, downloaded)
    if named not in settings.known("datasets"):
        return read_labels(file)
    data = settings.dataset(named)
    verify(file, data.sha256, str(file))
    query, answer, people = str(data.query), str(data.answer), data.annotators or []
    read, rows = read_rows(file, data.file_format, [query, answer, *people]), []
    if missing := [name for name in (query, answer, *people) if name not in read.columns]:
        raise SafetyHeadsError(f"{file} has no column {missing[0]!r}; found: {', '.join(read.columns)}.")
    for row in read.rows:
        where = f"{file}, {read.unit} {row.number}"
        if wrong := [name for name in (query, answer) if not isinstance(row.values.get(name), str)]:
            raise SafetyHeadsError(f"{where}: {wrong[0]} is {row.values.get(wrong[0])!r}; allowed: text.")
        for person in people:
            given = row.values.get(person)  # 0 and false are words, too
            said = "" if given is None else str(given).strip().lower().removesuffix(".0")
            said = "" if said == "nan" else said
            if said and said not in WORDS:
                raise SafetyHeadsError(f"{where}: {person} says {given!r}; allowed: {', '.join(WORDS)}, or nothing.")
            if said:
                rows.append((row.values[query], row.values[answer], WORDS[said], None, person, None, 1.0))
    if not rows:
        raise SafetyHeadsError(f"{file}: none of its {len(read.rows)} rows has a label in {', '.join(people)}.")
    text = dict.fromkeys(("query", "text", "condition", "annotator", "stratum"), "str")
    return pd.DataFrame(rows, columns=COLUMNS).astype({**text, "harmful": "boolean", "weight": "float64"})
