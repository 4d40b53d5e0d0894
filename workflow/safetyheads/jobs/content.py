"""What the user's own files hold, as a sum among the params of a rule: another content runs the rule again.

Snakemake compares dates: a file that is replaced by an older one, as `mv`, `tar`, `unzip` and `rsync -a` do, would
never be read again, and a copy of the same file would run days of GPU work again. So these files are no inputs of their
rules. Their sums are params instead, which Snakemake records and compares.
"""

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

MEMORY = Path(".snakemake", "safetyheads", "sums")
"""Where sums of models' files are remembered: in Snakemake's folder, beside its records of params."""

MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Endings of the files that matter in the folder of a local model: a change of any other file makes nothing again."""

LARGE = 1_000_000_000
"""From this many bytes on, a message says that files are read."""


def file_sum(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits; empty if there is no such file."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # the job says what is wrong with it


def folder_sum(folder: Path, name: str, memory: Path = MEMORY) -> str:
    """A sum of the names and contents of a model's files in `folder`; empty if it has none.

    Weights are gigabytes, so each file is read once, and its sum remembered for the model `name`, with the file's
    number, size and times. One of these is its ctime, which no program can set back. A file is read again where one of
    them is different: where it was changed, replaced, or copied to another machine. The sum itself is of contents only.
    """
    files = {path.relative_to(folder).as_posix(): path for path in model_files(folder)}
    if not files:
        return ""
    place = memory / f"{name}.json"
    before, now = _remembered(place), {file: _identity(path) for file, path in files.items()}
    known = {file: before[file]["sum"] for file in now if before.get(file, {}).get("identity") == now[file]}
    unread = [path for file, path in files.items() if file not in known]
    if sum(path.stat().st_size for path in unread if path.is_file()) >= LARGE:
        print(f"Reading the files of model {name} in {folder} once, to notice if they change ...", file=sys.stderr)
    sums = {file: known.get(file) or file_sum(path) for file, path in files.items()}
    # A file that was written while it was read has another identity now, and is read again next time.
    entries = {file: {"identity": now[file], "sum": sums[file]} for file in sums}
    if entries != before:
        _remember(place, entries)
    return sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files that matter in the folder of a local model, sorted; those of named chat templates are in a folder."""
    found: Iterable[Path] = [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]
    return sorted(path for path in found if path.suffix in MODEL_FILES and path.is_file())


def _identity(path: Path) -> list[int]:
    """What is different for another file at this path, or after a change. The number of the disk is left out: a network
    disk has another one on each machine."""
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _remembered(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return found if all({"identity", "sum"} <= set(entry) for entry in found.values()) else {}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _remember(place: Path, entries: dict[str, Any]) -> None:
    """Jobs that start at the same time may write the same file: it is whole at any time, and lost at worst."""
    temporary = place.with_name(f".{place.name}.{token_hex(4)}")
    with suppress(OSError):  # where it cannot be written, files are read each time
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(entries), encoding="utf-8")
        temporary.replace(place)
