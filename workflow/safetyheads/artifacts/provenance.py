"""Where a number comes from: the record of how a file was made, and of everything that it was made from.

    rates.parquet
      made_from: verdicts/...  <- its judge, code, versions
                 completions/...  <- its model, dtype, attention, kernels, device, decoding
                 prompts/..., datasets/..., ships/...

The record of a file holds those of its ancestors side by side, by their paths under results/: none is told twice. No
clock times, folders of this machine or batch sizes: the same inputs give the same record.
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
"""Every library that touches the numbers."""

IDENTITY = ("repo", "revision", "files", "tokenizer_sha256", "chat_template_sha256", "attention_from", "rest_from")
"""What of a model's description tells it from all others."""


def record(params: Mapping[str, Any], description: Path | None = None, **more: Any) -> dict[str, Any]:
    """How a job makes its file: settings and code of its rule, versions of libraries, the model of `description`.

    `more` is what only this job knows, such as the device.
    """
    settings = dict(params)
    code = settings.pop("code", None)
    made: dict[str, Any] = {"code": code, "config": settings, "versions": versions(), **more}
    if description is not None:
        described = read_json(description)
        made["model"] = {key: described[key] for key in IDENTITY if key in described}
    return made


def versions() -> dict[str, str]:
    """The installed version of each library, and of safetyheads."""
    found = {"safetyheads": __version__}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def provenance(path: Path) -> dict[str, Any]:
    """The record of the artefact at `path`, with `made_from`."""
    read: dict[str, Any] = json.loads(pq.read_schema(path).metadata[METADATA])
    return read


def made_from(paths: Iterable[Path], results: Path) -> dict[str, dict[str, Any]]:
    """The records of parquet artefacts and of what they were made from, by their paths under `results`."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        own = provenance(path)
        found |= own.pop("made_from", {})
        found[path.relative_to(results).as_posix()] = own
    return dict(sorted(found.items()))


def together(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of many files, each different one once, with the `files` that it is the record of."""
    groups: dict[str, dict[str, Any]] = {}
    for path, one in records.items():
        groups.setdefault(digest(one), {"record": one, "files": []})["files"].append(path)
    return list(groups.values())


def common(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of a result that several jobs made: where theirs differ, as in `device`, a list of what each says."""
    seen: dict[str, list[Any]] = {}
    for one in records:
        for key, value in one.items():
            found = seen.setdefault(key, [])
            if value not in found:
                found.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in seen.items()}
