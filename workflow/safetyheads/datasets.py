"""Read data sets: files of queries, in the formats in which they are published, into one table.

Nothing is repaired in silence: a file with a mistake is refused, with the lines concerned. A query is kept exactly as
the file has it; only the end of the line in a text file is left out.
"""

import csv
import json
import logging
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError, nearest

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

FORMATS = {".csv": "csv", ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""The format of a file by its ending."""

FORMAT_NAMES = tuple(dict.fromkeys(FORMATS.values()))
"""Each format once."""


class _Row(NamedTuple):
    line: int
    """Where the row begins in the file, counted from 1."""
    values: dict[str, Any]


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
    null where the file has none. `format` is `csv` (with a header), `text` (one query per line), `jsonl` (one object
    per line) or `parquet`. `query`, `category` and `target` name the file's columns; a text file has no columns.
    Duplicate queries are kept and blank lines of a text file skipped, both with a warning in the log.

    Raises SafetyHeadsError for a file that is missing, empty, not UTF-8 or malformed, and for missing columns and empty
    queries, with the lines concerned.
    """
    wanted = {"query": query, "category": category, "target": target}
    match format:
        case "csv":
            rows = _csv_rows(_read_text(path), path)
        case "jsonl":
            rows = _jsonl_rows(_read_text(path), path)
        case "parquet":
            rows = _parquet_rows(path)
        case "text":
            named = [key for key, column in wanted.items() if column is not None]
            if named:
                raise SafetyHeadsError(f"{path} is read as text, one query per line: leave out {' and '.join(named)}.")
            rows, wanted = _text_rows(_read_text(path), path), {"query": "query", "category": None, "target": None}
        case other:
            raise SafetyHeadsError(
                f"Unknown format {other!r}. Allowed: {', '.join(FORMAT_NAMES)}.{nearest(other, FORMAT_NAMES)}"
            )
    if not rows:
        raise SafetyHeadsError(f"{path} holds no queries: it has no rows.")
    _check_columns(rows, wanted, path)
    queries = [_query(row, wanted["query"] or "", path) for row in rows]
    _check_queries(queries, [row.line for row in rows], path)
    categories, targets = ([_label(row, wanted[key], path) for row in rows] for key in ("category", "target"))
    return table(dataset, queries, categories, targets)


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


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SafetyHeadsError(
            f"There is no data set file {path}. A relative path starts at {Path.cwd()}, where Snakemake runs."
        ) from None
    except OSError as error:
        raise SafetyHeadsError(f"The data set file {path} cannot be read: {error.strerror}.") from None
    if not data.strip():
        raise SafetyHeadsError(f"{path} is empty: a data set needs at least one query.")
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise SafetyHeadsError(f"{path} is encoded as UTF-16. Save it as UTF-8.")
    body = data.removeprefix(BOM_UTF8)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        offset, line = error.start + len(data) - len(body), body.count(b"\n", 0, error.start) + 1
        raise SafetyHeadsError(
            f"{path} is not UTF-8: byte 0x{body[error.start]:02x} at offset {offset} (line {line}). Save it as UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SafetyHeadsError(f"{path}, line {line}: a NUL character. Is this a text file? Save it as UTF-8 text.")
    return text


def _csv_rows(text: str, path: Path) -> list[_Row]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[_Row] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return rows
        except csv.Error as error:
            raise SafetyHeadsError(
                f"{path}, line {line}: this row is not valid CSV ({error}). A field that holds commas, quotes or line "
                'ends stands in double quotes, and a quote within it is written twice ("").'
            ) from None
        if not fields:
            continue
        if not header:
            header = fields
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                raise SafetyHeadsError(f"{path}: the header names columns more than once: {', '.join(repeated)}.")
        elif len(fields) != len(header):
            raise SafetyHeadsError(
                f"{path}, line {line}: {len(fields)} fields, but the header has {len(header)} ({', '.join(header)}). "
                "A field that holds commas must stand in double quotes."
            )
        else:
            rows.append(_Row(line, dict(zip(header, fields, strict=True))))


def _jsonl_rows(text: str, path: Path) -> list[_Row]:
    rows = []
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SafetyHeadsError(f"{path}, line {number}: not valid JSON ({error}).") from None
        if not isinstance(values, dict):
            raise SafetyHeadsError(
                f"{path}, line {number}: found {type(values).__name__}, but each line must be a JSON object like "
                '{"query": "..."}.'
            )
        rows.append(_Row(number, values))
    return rows


def _parquet_rows(path: Path) -> list[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise SafetyHeadsError(f"{path} cannot be read as parquet: {error}") from None
    return [_Row(number, values) for number, values in enumerate(rows, start=1)]


def _text_rows(text: str, path: Path) -> list[_Row]:
    rows = [_Row(number, {"query": line}) for number, line in enumerate(_lines(text), start=1) if line.strip()]
    blank = rows[-1].line - len(rows) if rows else 0
    if blank:
        log.warning("%s: %d blank lines between queries were skipped.", path, blank)
    return rows


def _lines(text: str) -> Iterable[str]:
    """The lines of a text as editors count them. `str.splitlines` would also split at form feeds."""
    return (line.removesuffix("\n") for line in StringIO(text, newline=None))


def _check_columns(rows: list[_Row], wanted: dict[str, str | None], path: Path) -> None:
    found = list(dict.fromkeys(name for row in rows for name in row.values))
    listed = ", ".join(map(repr, found))
    if wanted["query"] is None:
        raise SafetyHeadsError(f"Which column of {path} holds the queries? Say `query:`. Its columns: {listed}.")
    for key, column in wanted.items():
        if column is not None and column not in found:
            raise SafetyHeadsError(
                f"{path} has no column {column!r} (`{key}:`). Its columns: {listed}.{nearest(column, found)}"
            )


def _query(row: _Row, column: str, path: Path) -> str:
    value = row.values.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SafetyHeadsError(f"{path}, line {row.line}: {column!r} is {value!r}; a query must be text.")
    return _checked_unicode(value, row, path)


def _label(row: _Row, column: str | None, path: Path) -> str | None:
    value = None if column is None else row.values.get(column)
    if value is None or value == "":
        return None
    if isinstance(value, dict | list):
        raise SafetyHeadsError(f"{path}, line {row.line}: {column!r} must be one text, not a {type(value).__name__}.")
    return _checked_unicode(value if isinstance(value, str) else json.dumps(value), row, path)


def _checked_unicode(value: str, row: _Row, path: Path) -> str:
    """`value`, if it is valid Unicode text; else raises SafetyHeadsError.

    JSON can hold NUL characters and single halves of surrogate pairs (`"\\ud83d"`), which no tokenizer accepts.
    """
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise SafetyHeadsError(f"{path}, line {row.line}: the text holds a character that is not valid Unicode text.")
    return value


def _check_queries(queries: list[str], lines: list[int], path: Path) -> None:
    empty = [line for query, line in zip(queries, lines, strict=True) if not query.strip()]
    if empty:
        raise SafetyHeadsError(f"{path}: empty queries on {_listed(empty)}. Fill these rows in or remove them.")
    occurrences = defaultdict(list)
    for query, line in zip(queries, lines, strict=True):
        occurrences[query.strip()].append(line)
    for repeated in occurrences.values():
        if len(repeated) > 1:
            log.warning("%s: the same query stands on %s. All are kept.", path, _listed(repeated))


def _listed(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:10]))
    return f"line{'s' if len(lines) > 1 else ''} {shown}{f' and {len(lines) - 10} more' if len(lines) > 10 else ''}"
