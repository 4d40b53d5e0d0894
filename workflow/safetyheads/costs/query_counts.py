"""How many queries a local file has, and how long they are: quickly, for estimates; `datasets` reads it strictly."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Queries(NamedTuple):
    """Number of queries, and their mean length in characters where it is known."""

    rows: int
    characters: float | None = None


def count_queries(path: Path, format: str, query: str | None) -> Queries | None:
    """The queries of a file of that format, in the column `query`; None if the file cannot be read that way."""
    try:
        if format == "parquet":
            from pyarrow.parquet import ParquetFile

            return Queries(ParquetFile(path).metadata.num_rows) if path.is_file() else None
        lengths = [len(text) for text in _texts(path, format, query)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    return Queries(len(lengths), sum(lengths) / len(lengths)) if lengths else None


def _texts(path: Path, format: str, query: str | None) -> Iterator[str]:
    with path.open(encoding="utf-8-sig", newline="" if format == "csv" else None) as file:
        if format == "csv":
            yield from (row[query] or "" for row in csv.DictReader(file))
        else:
            lines = (line.rstrip("\n") for line in file if line.strip())
            yield from lines if format == "text" else (json.loads(line)[query] for line in lines)
