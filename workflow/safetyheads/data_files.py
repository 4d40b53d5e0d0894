"""The formats in which data sets are published, read into rows of their wanted columns.

Only the wanted columns are looked at: others may hold anything. Files that are packed with gzip are recognised by their
content, whatever their name.
"""

import csv
import gzip
import json
import logging
import sys
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.errors import SafetyHeadsError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

FORMATS = {".csv": "csv", ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
FORMATS[".parquet"] = "parquet"
"""The format of a file by its ending; `.gz` may follow."""

FORMAT_NAMES = tuple(dict.fromkeys(FORMATS.values()))
"""Each format once."""

_GZIP = b"\x1f\x8b"
_PACKED = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}
"""How files begin that are packed in ways that are not read."""
_INSTEAD = {
    "version https://git-lfs": "what git-lfs left behind: run `git lfs pull` where it comes from",
    **dict.fromkeys(("<!doctype html", "<html"), "a web page, not a data set: check the address that it came from"),
}


def format_of(name: str) -> str | None:
    """The format of a file by the ending of its name, such as `.csv` or `.csv.gz`; None if that does not tell it."""
    path = PurePosixPath(name.lower())
    return FORMATS.get(PurePosixPath(path.stem if path.suffix == ".gz" else path.name).suffix)


class Row(NamedTuple):
    """The values of the wanted columns in one row. Columns that the row lacks are missing."""

    number: int
    values: dict[str, Any]


class Rows(NamedTuple):
    """The rows of a file and the names of the columns that it has, each as often as it has them.

    `unit` is what a row's `number` counts, from 1: `line`, where the row begins in a text file or its number in a
    parquet file, or `entry` of a JSON array.
    """

    rows: list[Row]
    columns: list[str]
    unit: str = "line"


def read_rows(path: Path, format: str, wanted: Collection[str]) -> Rows:
    """The rows of a file in `format`, one of `FORMAT_NAMES`, with the columns `wanted`; a text file has none.

    Each line of a text file is a row with the column `query`. Raises SafetyHeadsError, with the place, for a file that
    is missing, empty, packed in an unknown way, not UTF-8 or malformed, and where a wanted column is there twice.
    """
    if format not in FORMAT_NAMES:
        raise SafetyHeadsError(
            f"Unknown format {format!r}. Allowed: {', '.join(FORMAT_NAMES)}.{nearest(format, FORMAT_NAMES)}"
        )
    data = _content(path)
    if format == "parquet":
        return _parquet(data, path, wanted)
    text = _decoded(data, path)
    if format == "text":
        return _lines_as_rows(text, path)
    if format == "csv":
        return _csv(text, path, wanted)
    return _json(text, path, wanted)


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is packed with gzip."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SafetyHeadsError(
            f"There is no data set file {path}. A relative path starts at {Path.cwd()}, where Snakemake runs."
        ) from None
    except OSError as error:
        raise SafetyHeadsError(f"The data set file {path} cannot be read: {error.strerror}.") from None
    if data.startswith(_GZIP):
        try:
            return gzip.decompress(data)
        except EOFError:
            raise SafetyHeadsError(f"{path} is cut off: packed with gzip, without an end. Fetch it again.") from None
        except (OSError, zlib.error) as error:
            raise SafetyHeadsError(f"{path} is packed with gzip, but damaged ({error}). Fetch it again.") from None
    for start, name in _PACKED.items():
        if data.startswith(start):
            raise SafetyHeadsError(f"{path} is packed with {name}, which is not read. Unpack it, or pack it with gzip.")
    if path.suffix.lower() == ".gz":
        log.warning("%s is not packed, though its name ends in .gz. It is read as it is.", path)
    return data


def _decoded(data: bytes, path: Path) -> str:
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
    begins = text.lstrip()[:60].lower()
    found = next((said for start, said in _INSTEAD.items() if begins.startswith(start)), "")
    if found or not begins:
        raise SafetyHeadsError(f"{path} is {found or 'empty: a data set needs at least one query'}.")
    if "\0" in text.partition("\n")[0]:
        raise SafetyHeadsError(f"{path}, line 1: a NUL character. Is this a text file? Save it as UTF-8 text.")
    return text


def _check_once(columns: Iterable[str], wanted: Collection[str], where: str) -> None:
    """Raise SafetyHeadsError if a wanted column is there more than once."""
    if twice := sorted(name for name, times in Counter(columns).items() if times > 1 and name in wanted):
        named = ", ".join(map(repr, twice))
        raise SafetyHeadsError(f"{where} names columns more than once: {named}. Rename all but the one that is meant.")


def _csv(text: str, path: Path, wanted: Collection[str]) -> Rows:
    limit = csv.field_size_limit(sys.maxsize)  # a column that is not wanted may hold whole pictures
    try:
        return _csv_rows(text, path, wanted)
    finally:
        csv.field_size_limit(limit)


def _csv_rows(text: str, path: Path, wanted: Collection[str]) -> Rows:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] = []
    at: dict[str, int] = {}
    rows: list[Row] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return Rows(rows, header)
        except csv.Error as error:
            raise SafetyHeadsError(
                f"{path}, line {line}: this row is not valid CSV ({error}). A field that holds commas, quotes or line "
                'ends stands in double quotes, and a quote within it is written twice ("").'
            ) from None
        if not fields:
            continue
        if not header:
            header = fields
            _check_once(header, wanted, f"{path}: the header")
            at = {name: header.index(name) for name in wanted if name in header}
        elif len(fields) != len(header):
            raise SafetyHeadsError(
                f"{path}, line {line}: {len(fields)} fields, but the header has {len(header)} ({', '.join(header)}). "
                "A field that holds commas must stand in double quotes."
            )
        else:
            rows.append(Row(line, {name: fields[place] for name, place in at.items()}))


class _Object(dict[str, Any]):
    """A JSON object, and the names that it has more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.names = [name for name, _ in pairs]


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) < 4000 else digits  # Python refuses to read numbers of more digits


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_integer)


def _json(text: str, path: Path, wanted: Collection[str]) -> Rows:
    """An array of objects, or one object on each line: both are published as `.json`, and as `.jsonl`."""
    start = len(text) - len(text.lstrip())
    try:
        first, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        if text[start] == "[":
            raise _no_array(path, error) from None
        return _together(_json_lines(text, path), path, wanted, "line")
    if not text[end:].strip():  # one value is the whole file
        if isinstance(first, list):
            return _together(enumerate(first, start=1), path, wanted, "entry")
        if isinstance(first, _Object):
            _check_not_wrapped(first, path, wanted)
            return _together([(text.count("\n", 0, start) + 1, first)], path, wanted, "line")
    elif isinstance(first, list) and "\n" in text[start:end]:
        raise _no_array(path, f"more text follows its end in line {text.count(chr(10), 0, end) + 1}")
    return _together(_json_lines(text, path), path, wanted, "line")


def _no_array(path: Path, why: object) -> SafetyHeadsError:
    return SafetyHeadsError(
        f"{path} is not valid JSON ({why}). A file that begins with `[` must be one array of objects."
    )


def _together(found: Iterable[tuple[int, Any]], path: Path, wanted: Collection[str], unit: str) -> Rows:
    rows, columns = [], dict[str, None]()
    for number, value in found:
        if not isinstance(value, _Object):
            raise SafetyHeadsError(
                f"{path}, {unit} {number}: found {type(value).__name__}, but each {unit} must be a JSON object like "
                '{"query": "..."}.'
            )
        _check_once(value.names, wanted, f"{path}, {unit} {number}: the object")
        columns.update(dict.fromkeys(value))
        rows.append(Row(number, {name: value[name] for name in wanted if name in value}))
    return Rows(rows, list(columns), unit)


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(text), start=1):
        if line.strip():
            try:
                yield number, _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                raise SafetyHeadsError(f"{path}, line {number}: not valid JSON ({error}).") from None


def _check_not_wrapped(value: _Object, path: Path, wanted: Collection[str]) -> None:
    """Raise SafetyHeadsError if a file that is one object holds the queries deeper inside."""
    deeper = [name for name, inner in value.items() if isinstance(inner, dict | list)]
    if deeper and not any(name in value and name not in deeper for name in wanted):
        raise SafetyHeadsError(
            f"{path} is one JSON object, with lists or objects at {', '.join(map(repr, deeper))}; a data set is an "
            'array of objects, [{"query": "..."}, ...], or one object on each line. Save the part with the queries as '
            "such a file."
        )


def _parquet(data: bytes, path: Path, wanted: Collection[str]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        _check_once(names, wanted, f"{path}: the schema")
        kept = [name for name in names if name in wanted]
        columns = {name: file.read(columns=[name]).column(name) for name in kept}
    except (OSError, KeyError, pa.ArrowException) as error:
        raise SafetyHeadsError(f"{path} cannot be read as parquet: {error}") from None
    values = {name: _values(column, name, path) for name, column in columns.items()}
    rows = [Row(at + 1, {name: values[name][at] for name in kept}) for at in range(file.metadata.num_rows)]
    return Rows(rows, names)


def _values(column: "pa.ChunkedArray", name: str, path: Path) -> list[Any]:
    """The values of a column as Python has them. It has no dates beyond the year 9999, nor text that is not UTF-8."""
    import pyarrow as pa

    failures = (ValueError, OverflowError, pa.ArrowException)
    try:
        return list(column.to_pylist())
    except failures:
        for number, value in enumerate(column, start=1):
            try:
                value.as_py()
            except failures as error:
                raise SafetyHeadsError(
                    f"{path}, line {number}: column {name!r} holds a {column.type} that cannot be read ({error})."
                ) from None
        raise


def _lines_as_rows(text: str, path: Path) -> Rows:
    rows = [Row(number, {"query": line}) for number, line in enumerate(_lines(text), start=1) if line.strip()]
    blank = rows[-1].number - len(rows) if rows else 0
    if blank:
        log.warning("%s: %d blank lines between queries were skipped.", path, blank)
    return Rows(rows, ["query"])


def _lines(text: str) -> Iterable[str]:
    """The lines of a text as editors count them. `str.splitlines` would also split at form feeds."""
    return (line.removesuffix("\n") for line in StringIO(text, newline=None))
