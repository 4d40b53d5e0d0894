"""Read data sets: files of queries, in the formats in which they are published, into one table.

Nothing is repaired in silence: a file with a mistake is refused, with the lines concerned. A query is kept exactly as
the file has it; only the end of the line in a text file is left out.
"""

import datetime
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.data_files import Row, Rows, read_rows
from safetyheads.errors import SafetyHeadsError, nearest

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def read_queries(
    path: Path,
    *,
    dataset: str,
    format: str,
    query: str | None = None,
    category: str | None = None,
    target: str | None = None,
) -> "pd.DataFrame":
    """Read the data set `dataset` from a file, as a table with a row for each query, in file order.

    Its columns are dataset, query_id (`{dataset}-0007`, counted from 0), query, category and target; the last two are
    null where the file has none. `format` is `csv` (with a header), `text` (one query per line), `jsonl` or `json` (one
    object per line, or an array of objects) or `parquet`; each may be packed with gzip. `query`, `category` and
    `target` name the file's columns, and no other column is read; a text file has no columns. Categories and targets
    that are no text become text: numbers, truth values, dates and times as JSON and ISO 8601 write them. Duplicate
    queries are kept and blank lines of a text file skipped, both with a warning in the log.

    Raises SafetyHeadsError for a file that is missing, empty, damaged, not UTF-8 or malformed, and for missing columns,
    empty queries and values that are no text, with the lines concerned.
    """
    wanted = {"query": query, "category": category, "target": target}
    if format == "text":
        if named := [key for key, column in wanted.items() if column is not None]:
            raise SafetyHeadsError(f"{path} is read as text, one query per line: leave out {' and '.join(named)}.")
        wanted["query"] = "query"
    found = read_rows(path, format, {column for column in wanted.values() if column is not None})
    if not found.rows:
        raise SafetyHeadsError(f"{path} holds no queries: it has no rows.")
    _check_columns(found.columns, wanted, path)
    values = _Values(found, path)
    queries = [values.query(row, wanted["query"] or "") for row in found.rows]
    _check_queries(queries, found, path)
    categories, targets = ([values.label(row, wanted[key]) for row in found.rows] for key in ("category", "target"))
    return table(dataset, queries, categories, targets)


def pilot(
    rows: "pd.DataFrame", limit: int | None = None, sample: dict[str, int] | None = None, half: str | None = None
) -> "pd.DataFrame":
    """Some rows of a data set, in file order and with the ids that they have in the whole one; all if it has no more.

    These are the first `limit` rows, `sample["n"]` rows drawn by `sample["seed"]`, or every other row: the `half`
    `even` has the first one, `odd` the second. What is drawn is the same for all versions of Python and of libraries,
    and a larger sample with the same seed holds the smaller one.
    """
    kept = list(range(len(rows)))
    if half is not None:
        kept = kept[half == "odd" :: 2]
    if limit is not None:
        kept = kept[:limit]
    if sample is not None:
        drawn = sorted(kept, key=lambda at: sha256(f"{sample.get('seed', 0)}:{at}".encode()).digest())
        kept = sorted(drawn[: sample["n"]])
    asked = limit if limit is not None else sample["n"] if sample is not None else 0
    if asked > len(rows):
        log.warning("%d queries were asked for, but the data set has %d. All are taken.", asked, len(rows))
    return rows.iloc[kept].reset_index(drop=True)


def table(
    dataset: str, queries: Sequence[str], categories: Sequence[str | None], targets: Sequence[str | None]
) -> "pd.DataFrame":
    """The table of a data set, with the columns of `read_queries`, from its queries, categories and targets."""
    import pandas as pd

    digits = max(4, len(str(len(queries) - 1)))  # with equally many digits, ids sort in file order
    columns = {
        "dataset": [dataset] * len(queries),
        "query_id": [f"{dataset}-{number:0{digits}d}" for number in range(len(queries))],
        "query": queries,
        "category": categories,
        "target": targets,
    }
    return pd.DataFrame(columns, dtype="string")


def _check_columns(found: Sequence[str], wanted: dict[str, str | None], path: Path) -> None:
    listed = ", ".join(map(repr, found))
    if wanted["query"] is None:
        raise SafetyHeadsError(f"Which column of {path} holds the queries? Say `query:`. Its columns: {listed}.")
    for key, column in wanted.items():
        if column is not None and column not in found:
            alike = [name for name in found if _bare(name) == _bare(column)]
            raise SafetyHeadsError(
                f"{path} has no column {column!r} (`{key}:`). Its columns: {listed}.{nearest(column, alike or found)}"
            )


def _bare(name: str) -> str:
    """A column's name without what cannot be seen, or is overlooked: case, spaces around it, a byte order mark."""
    return name.replace("\ufeff", "").strip().casefold()


class _Values:
    """Makes text of the values of a file. Errors name the file, line and column."""

    def __init__(self, found: Rows, path: Path) -> None:
        self.place, self.unit = path, found.unit

    def query(self, row: Row, column: str) -> str:
        value = row.values.get(column)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise SafetyHeadsError(f"{self._at(row)}: {column!r} is {_shown(value)}; a query must be text.")
        return self._checked_unicode(value, row, column)

    def label(self, row: Row, column: str | None) -> str | None:
        value = None if column is None else row.values.get(column)
        if value is None or value == "" or value != value:  # a number that is none (NaN), and a date that is none (NaT)
            return None
        text = _text(value)
        if text is None:
            raise SafetyHeadsError(
                f"{self._at(row)}: {column!r} is {_shown(value)}; it must be one text, number, truth value, date or "
                f"time, not {type(value).__name__}. Leave the column out, or write it as text."
            )
        return self._checked_unicode(text, row, column)

    def _at(self, row: Row) -> str:
        return f"{self.place}, {self.unit} {row.number}"

    def _checked_unicode(self, value: str, row: Row, column: str | None) -> str:
        """`value`, if it is valid Unicode text; else raises SafetyHeadsError.

        JSON can hold NUL characters and single halves of surrogate pairs (`"\\ud83d"`), which no tokenizer accepts.
        """
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise SafetyHeadsError(
                f"{self._at(row)}: the text of {column!r} holds a character that is not valid Unicode text: "
                f"{_shown(value)}."
            )
        return value


def _text(value: Any) -> str | None:
    """A single value as it would be written; None for what is no single value, and for bytes, which may be anything."""
    match value:
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case Decimal():
            return format(value, "f")
        case datetime.date() | datetime.time():
            return value.isoformat()
    return None


def _shown(value: Any) -> str:
    """A value for a message, cut off if it is long."""
    shown = ascii(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _check_queries(queries: list[str], found: Rows, path: Path) -> None:
    numbers = [row.number for row in found.rows]
    empty = [number for query, number in zip(queries, numbers, strict=True) if not query.strip()]
    if empty:
        listed = _listed(empty, found.unit)
        raise SafetyHeadsError(f"{path}: empty queries on {listed}. Fill these rows in or remove them.")
    occurrences = defaultdict(list)
    for query, number in zip(queries, numbers, strict=True):
        occurrences[query.strip()].append(number)
    for repeated in occurrences.values():
        if len(repeated) > 1:
            log.warning("%s: the same query stands on %s. All are kept.", path, _listed(repeated, found.unit))


def _listed(numbers: list[int], unit: str) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    units = {"line": "lines", "entry": "entries"}[unit] if len(numbers) > 1 else unit
    return f"{units} {shown}{f' and {len(numbers) - 10} more' if len(numbers) > 10 else ''}"
