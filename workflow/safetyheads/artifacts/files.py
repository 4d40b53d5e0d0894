"""Artefacts on disk: parquet files of a fixed schema, written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from safetyheads.artifacts.schemas import SCHEMA_VERSION, schema
from safetyheads.errors import SafetyHeadsError

METADATA = b"safetyheads"
"""Where in a parquet file its record is."""


def write(stage: str, path: Path, rows: pd.DataFrame, keys: Mapping[str, str], record: Mapping[str, Any]) -> None:
    """Write `rows` as the artefact of `stage` at `path`, with the path's own `keys` as its first columns.

    `record` goes into the parquet metadata `safetyheads` as JSON. The same inputs give byte-identical files.
    """
    columns = schema(stage)
    frame = rows.assign(**keys)[columns.names]
    text = json.dumps({"schema_version": SCHEMA_VERSION, **record}, sort_keys=True)
    table = pa.Table.from_pandas(frame, schema=columns, preserve_index=False)
    table = table.replace_schema_metadata({METADATA: text.encode()})

    def write_to(temporary: Path) -> None:
        pq.write_table(table, temporary, compression="zstd")

    replace(path, write_to)


def read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read an artefact, or some of its columns. Raises SafetyHeadsError if the file is not parquet."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise SafetyHeadsError(f"{path} is not a whole artefact ({error}). Delete it and run again.") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write sorted, indented JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON artefact."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def replace(path: Path, write_to: Callable[[Path], object]) -> None:
    """Call `write_to` with a temporary name beside `path`, flush the file to disk, then rename it to `path`.

    A reader sees the old file or the new one, never a half, also when two processes write the same path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}")
    try:
        write_to(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest(value: Any) -> str:
    """A short hash of plain values, arrays and tables: equal values, equal digests."""

    def plain(other: Any) -> Any:
        return other.to_dict("list") if isinstance(other, pd.DataFrame) else other.tolist()

    return sha256(json.dumps(value, sort_keys=True, default=plain).encode()).hexdigest()[:16]
