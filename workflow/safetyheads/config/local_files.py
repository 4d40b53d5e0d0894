"""What is wrong with the paths of a configuration, in words: nothing is there, or not what is needed."""

import re
from collections.abc import Iterator
from pathlib import Path

from safetyheads.config.hints import path_hint


def model_folder(where: str, path: str | None, folder: Path) -> Iterator[str]:
    """The problem of a path that must be the folder of a model."""
    if path is None:
        return
    found, place = folder / path, f"{where}.path: found {path!r}"
    yield from braces(f"{where}.path", path)
    allowed = "a folder with config.json, the tokenizer and *.safetensors"
    if path.lower().endswith(".gguf") and found.is_file():
        made = "`python -m safetyheads.models.gguf FILE FOLDER` makes one of it"
        yield f"{place}, a file; allowed: {allowed}. {made} (config/README.md#models)"
    elif not found.is_dir():
        yield f"{place}, where there is no folder ({looked_for(folder, path)}); allowed: {allowed}{path_hint(path)}"
    elif not (found / "config.json").is_file():
        yield f"{place}, a folder without config.json; allowed: {allowed}"
    elif not any(found.glob("*.safetensors")):
        yield f"{place}, a folder without *.safetensors; allowed: {allowed}. Other formats of weights are not loaded"


def braces(where: str, path: str | None) -> Iterator[str]:
    """The problem of a path with braces, in which Snakemake looks for a wildcard."""
    if path and re.search(r"[{}]", path):
        yield f"{where}: found {path!r}; allowed: a path without '{{' and '}}', which Snakemake fills in. Rename it"


def looked_for(folder: Path, path: str) -> str:
    """Where a path was looked for, in words."""
    return f"looked for {(folder / path).resolve()}"
