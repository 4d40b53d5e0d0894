"""Artefacts on disk: parquet files of a fixed schema, written whole or not at all, and the parts of unfinished ones.

`SCHEMAS` is the public contract: the columns of every stage, after those that repeat the keys of the file's path.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from errno import EEXIST, ENOENT, ESTALE
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from safetyheads.errors import SafetyHeadsError

SCHEMA_VERSION = 1
ATTEMPTS = 5  # to write a part into a folder that another copy of the job deletes
_METADATA = b"safetyheads"
_TEXT, _TOKENS, _HEAD = pa.string(), pa.list_(pa.int32()), {"layer": pa.int16(), "head": pa.int16()}
_PROMPTS = {"model": _TEXT, "dataset": _TEXT, "template": _TEXT}
_SCORES = _PROMPTS | {"ablation": _TEXT}
_COMPLETIONS = _SCORES | {"plan": _TEXT, "decoding": _TEXT}
_VERDICTS = _COMPLETIONS | {"judge": _TEXT}

SCHEMAS: dict[str, pa.Schema] = {
    stage: pa.schema(columns)
    for stage, columns in {
        "datasets": {"dataset": _TEXT, "query_id": _TEXT, "query": _TEXT, "category": _TEXT, "target": _TEXT},
        "prompts": _PROMPTS | {"query_id": _TEXT, "text": _TEXT, "token_ids": _TOKENS},
        "ships": _SCORES | {"query_id": _TEXT, **_HEAD, "score": pa.float64()},
        "sahara": _SCORES | {"step": pa.int16(), **_HEAD, "score": pa.float64(), "selected": pa.bool_()},
        "completions": _COMPLETIONS
        | {
            "query_id": _TEXT,
            "variant": _TEXT,
            "heads": pa.list_(pa.struct(_HEAD)),
            "sample": pa.int32(),
            "text": _TEXT,
            "token_ids": _TOKENS,
            "n_tokens": pa.int32(),
            "finish_reason": _TEXT,
        },
        "verdicts": _VERDICTS
        | {
            "query_id": _TEXT,
            "variant": _TEXT,
            "sample": pa.int32(),
            "harmful": pa.bool_(),
            "probability": pa.float64(),
            "reason": _TEXT,
        },
        "rates": _VERDICTS
        | {"variant": _TEXT, "n": pa.int64()}
        | dict.fromkeys(("harmful", "asr", "low", "high", "delta", "p_value", "p_adjusted"), pa.float64()),
    }.items()
}


def write(stage: str, path: Path, rows: pd.DataFrame, keys: Mapping[str, str], provenance: Mapping[str, Any]) -> None:
    """Write `rows` as the artefact of `stage` at `path`, with the path's own `keys` as its first columns.

    `provenance` goes into the parquet metadata `safetyheads` as JSON. The same inputs give byte-identical files.
    """
    schema = SCHEMAS[stage]
    frame = rows.assign(**keys)[schema.names]
    text = json.dumps({"schema_version": SCHEMA_VERSION, **provenance}, sort_keys=True)
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    table = table.replace_schema_metadata({_METADATA: text.encode()})

    def write_to(temporary: Path) -> None:
        pq.write_table(table, temporary, compression="zstd")

    replace(path, write_to)


def read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read an artefact, or some of its columns. Raises SafetyHeadsError if the file is not parquet."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise SafetyHeadsError(f"{path} is not a whole artefact ({error}). Delete it and run again.") from None


def provenance(path: Path) -> dict[str, Any]:
    """What the artefact at `path` was made from and with."""
    record: dict[str, Any] = json.loads(pq.read_schema(path).metadata[_METADATA])
    return record


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


class Parts:
    """The finished batches of an unfinished artefact, in a hidden folder beside it.

    The folder's name holds a digest of everything that determines the parts, so that those of another run are never
    used: a restarted job continues after its last whole batch and gives the file of an uninterrupted one. Two copies of
    one job may work at once (on a cluster, where one was taken for dead): what one has made serves both, and either may
    finish and delete the folder while the other goes on.
    """

    def __init__(self, output: Path, *determined_by: Any) -> None:
        self.folder = output.with_name(f".{output.name}.parts-{digest(determined_by)}")
        for stale in output.parent.glob(f".{output.name}.parts-*"):
            if stale != self.folder:
                shutil.rmtree(stale, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Where the part `name` is or will be."""
        return self.folder / f"{name}.npy"

    def load(self, name: str) -> np.ndarray | None:
        """The part `name`, or None if it has not been made or another copy of this job has deleted it."""
        try:
            part: np.ndarray = np.load(self.path(name), allow_pickle=False)
        except OSError as error:  # never mapped into memory: a file that another machine deletes takes the map with it
            if error.errno not in (ENOENT, ESTALE):
                raise
            return None
        return part

    def save(self, name: str, array: np.ndarray) -> None:
        """Keep `array` as the part `name`."""

        def write_to(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)

        for attempt in range(ATTEMPTS):
            try:
                return replace(self.path(name), write_to)
            except OSError as error:  # another copy of this job has just deleted the folder
                if error.errno not in (EEXIST, ENOENT, ESTALE) or attempt == ATTEMPTS - 1:
                    raise

    def drop(self, prefix: str) -> None:
        """Delete the parts whose names begin with `prefix`."""
        for path in self.folder.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete all parts, once the artefact itself is on disk."""
        shutil.rmtree(self.folder, ignore_errors=True)
