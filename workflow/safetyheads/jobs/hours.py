"""How long jobs took, by the files that Snakemake's `benchmark:` wrote while they ran."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.artifacts.provenance import provenance
from safetyheads.artifacts.schemas import STAGES, keys

COLUMNS = ["model", "dataset", "template", "ablation", "work", "decoding", "jobs", "hours", "device"]


def hours(results: Path, files: Mapping[str, Iterable[str]], gpus: Mapping[str, int]) -> pd.DataFrame:
    """How long each of `files` took to make, by stage, or by the name of scores: a table with the columns `COLUMNS`.

    `work` is the name of the scores, or the plan that text was generated for; `decoding` is empty for scores. `hours`
    are those of all shards together, times the GPUs that a job of the model has (`gpus`), and null where no benchmark
    file is left. Of a job that went on after an interruption they are those of its last run. `device` is the name of
    the GPU, or cpu; of shards that ran on different ones, their names with commas.
    """
    rows = []
    for name, paths in files.items():
        stage = name if name in STAGES else "scores"
        for path in map(Path, paths):
            parts = path.relative_to(results).with_suffix("").parts[1:]
            row: dict[str, Any] = dict(zip(keys(stage), parts))
            row |= {"work": row.get("plan") or row.get("method") or name, "decoding": row.get("decoding", "")}
            seconds, device = _seconds(results, path), _device(path)
            used = 1 if device == "cpu" else gpus.get(row["model"], 1)
            row |= {"hours": sum(seconds) * used / 3600 if seconds else None, "jobs": len(seconds), "device": device}
            rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"hours": "float64"})


def _seconds(results: Path, path: Path) -> list[float]:
    """The seconds of the job that made a file, or of each of its shards; nothing where no benchmark file is left.

    Where a file was made again with another number of shards, the files of the last number that was used count.
    """
    stem = results / "benchmarks" / path.relative_to(results).with_suffix("")
    shards = re.compile(rf"{re.escape(stem.name)}\.\d+-of-(\d+)\.jsonl")
    found: dict[str, list[Path]] = {}
    for file in sorted(stem.parent.glob("*.jsonl")):
        if file.name == f"{stem.name}.jsonl":
            found.setdefault("", []).append(file)
        elif of := shards.fullmatch(file.name):
            found.setdefault(of[1], []).append(file)
    last = max(found.values(), key=lambda files: max(file.stat().st_mtime for file in files), default=[])
    lines = [file.read_text().splitlines() for file in last]
    return [float(json.loads(written[-1])["s"]) for written in lines if written]


def _device(path: Path) -> str:
    found = provenance(path).get("device")
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
