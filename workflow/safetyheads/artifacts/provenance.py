"""Where a number comes from: a record of how each file was made, and of all files that it was made from.

    rates.parquet
      made_from: verdicts/...  <- its judge, code, versions
                 completions/...  <- its model, dtype, attention, kernels, device, decoding
                 prompts/..., datasets/..., ships/...

`made_from` holds the records of all these files side by side, by their paths under results/, so that each is there once
even if many files were made from it. A record has no clock times, no folders of the machine and no batch sizes. So the
same inputs give the same record, and with it the same file.
"""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from safetyheads import __version__
from safetyheads.artifacts.files import METADATA, digest, read_json

LIBRARIES = (
    *("accelerate", "jinja2", "numpy", "pandas", "pyarrow", "safetensors", "scipy", "statsmodels", "tokenizers"),
    *("torch", "transformers"),
)
"""Every library that can change a number. Records name their versions."""

IDENTITY = ("repo", "revision", "files", "tokenizer_sha256", "chat_template_sha256", "attention_from", "rest_from")
"""The entries of a model's description that tell this model from all others."""


def record(params: Mapping[str, Any], description: Path | None = None, **more: Any) -> dict[str, Any]:
    """The record of the file that a job makes, without `made_from`.

    `params` are those of the job's rule: the fingerprint becomes `code`, all others `config`. `versions` are added,
    and, if `description` (the path of a model's JSON file) is given, what identifies that model. `more` is what only
    the running job knows, such as the device.
    """
    settings = dict(params)
    code = settings.pop("code", None)
    made: dict[str, Any] = {"code": code, "config": settings, "versions": versions(), **more}
    if description is not None:
        described = read_json(description)
        made["model"] = {key: described[key] for key in IDENTITY if key in described}
    return made


def versions() -> dict[str, str]:
    """The version of safetyheads and of each of `LIBRARIES` that is installed."""
    found = {"safetyheads": __version__}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def provenance(path: Path) -> dict[str, Any]:
    """The record in the metadata of the parquet file at `path`, with `made_from`."""
    read: dict[str, Any] = json.loads(pq.read_schema(path).metadata[METADATA])
    return read


def made_from(paths: Iterable[Path], results: Path) -> dict[str, dict[str, Any]]:
    """The records of parquet files and of everything they were made from, by their paths under `results`, sorted."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        own = provenance(path)
        before = own.pop("made_from", {})
        found |= apart(before) if isinstance(before, list) else before
        found[path.relative_to(results).as_posix()] = own
    return dict(sorted(found.items()))


def together(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The different ones among the records of many files: each is a `record` with the list of its `files`.

    A study has thousands of files, but only a few different records.
    """
    groups: dict[str, dict[str, Any]] = {}
    for path, one in records.items():
        groups.setdefault(digest(one), {"record": one, "files": []})["files"].append(path)
    return list(groups.values())


def apart(groups: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The records of many files by their paths, of what `together` made of them."""
    return {path: group["record"] for group in groups for path in group["files"]}


def common(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One record for a file that several jobs made together.

    Where their records agree, this one has the same value. Where they differ, as `device` or the version of a library
    may, it has a list of the different values.
    """
    every = list(records)
    made: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in every for key in one):
        values = [one[key] for one in every if key in one]
        different = [value for at, value in enumerate(values) if value not in values[:at]]
        if len(different) > 1 and all(isinstance(value, dict) for value in different):
            made[key] = common(different)
        else:
            made[key] = different[0] if len(different) == 1 else different
    return made
