"""Read and write artefacts: parquet files with fixed columns, JSON and text.

Every file is written whole or not at all. A job that is killed while it writes leaves no half file that a later job
could take for a result.
"""

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safetyheads.artifacts.schemas import SCHEMA_VERSION, schema
from safetyheads.errors import SafetyHeadsError

METADATA = b"safetyheads"
"""The key under which a parquet file's metadata hold its record."""


def write(stage: str, path: Path, rows: pd.DataFrame, keys: Mapping[str, str], record: Mapping[str, Any]) -> None:
    """Write `rows` as the artefact of `stage` at `path`.

    `keys` are the values of the keys in the path, such as `{"model": "demo", ...}`. They become the first columns, with
    the same value in every row, so that files of many cells can simply be put together. `record` (see `provenance`)
    goes into the file's metadata as JSON. The same arguments give byte-identical files.
    """
    columns = schema(stage)
    frame = rows.assign(**keys)[columns.names]
    text = json.dumps({"schema_version": SCHEMA_VERSION, **record}, sort_keys=True)
    table = pa.Table.from_pandas(frame, schema=columns, preserve_index=False)
    table = table.replace_schema_metadata({METADATA: text.encode()})

    def write_to(temporary: Path) -> None:
        pq.write_table(table, temporary, compression="zstd")

    replace(path, write_to)


def read(path: Path, columns: list[str] | None = None, *, variants: str | None = None) -> pd.DataFrame:
    """Read an artefact, or only some of its columns, or the rows whose variant matches the regular expression.

    Raises SafetyHeadsError if the file is missing or damaged.
    """
    rows = None if variants is None else pc.match_substring_regex(pc.field("variant"), f"^(?:{variants})$")
    try:
        return pq.read_table(path, columns=columns, partitioning=None, filters=rows).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise SafetyHeadsError(f"{path} is not a whole artefact ({error}). Delete it and run again.") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def copy(source: Path, path: Path) -> None:
    """Write a file that is like another one, whole or not at all."""
    replace(path, lambda temporary: temporary.write_bytes(source.read_bytes()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and an indent of 2, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON artefact. Raises OSError or ValueError if there is none."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def replace(path: Path, write_to: Callable[[Path], object]) -> None:
    """Write a file so that readers see the old one or the new one, but never a half.

    `write_to` is called with a temporary path in the same folder. What it writes is flushed to disk and then renamed to
    `path`, which the file system does in one step. Two processes may write the same path at once. If `write_to` raises
    an error, the temporary file is deleted and `path` stays as it was.
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
    """A hash of plain values, arrays and tables, as 16 hexadecimal digits. Equal values have equal digests."""

    def plain(other: Any) -> Any:
        return other.to_dict("list") if isinstance(other, pd.DataFrame) else other.tolist()

    return sha256(json.dumps(value, sort_keys=True, default=plain).encode()).hexdigest()[:16]
