"""How long jobs took: the benchmark files of a cell, whole or in shards."""

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from safetyheads.artifacts.provenance import METADATA
from safetyheads.jobs.hours import COLUMNS, hours

CELL = {"model": "m", "dataset": "d", "template": "t", "ablation": "a"}


def benchmark(path: Path, *seconds: float, at: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"s": each, "h:m:s": "-"}) + "\n" for each in seconds))
    os.utime(path, (1000 + at, 1000 + at))


def made(path: Path, device: str) -> str:
    """A result whose record names the device."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {METADATA: json.dumps({"device": device}).encode()}
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata(record), path)
    return str(path)


def test_the_hours_of_a_job_are_those_of_all_its_gpus(tmp_path: Path) -> None:
    path = made(tmp_path / "ships/m/d/t/a.parquet", "NVIDIA A100-SXM4-80GB")
    benchmark(tmp_path / "benchmarks/ships/m/d/t/a.jsonl", 7200.0)
    table = hours(tmp_path, {"ships": [path], "sahara": []}, {"m": 2})
    assert list(table) == COLUMNS
    assert table.to_dict("records") == [
        {**CELL, "work": "ships", "decoding": "", "jobs": 1, "hours": 4.0, "device": "NVIDIA A100-SXM4-80GB"}
    ]


def test_a_cpu_counts_once_and_a_method_by_its_name(tmp_path: Path) -> None:
    path = made(tmp_path / "scores/knockouts/m/d/t/a.parquet", "cpu")
    benchmark(tmp_path / "benchmarks/scores/knockouts/m/d/t/a.jsonl", 360.0)
    one = hours(tmp_path, {"knockouts": [path]}, {"m": 2}).iloc[0]
    assert (one["model"], one["work"], one["hours"], one["device"]) == ("m", "knockouts", 0.1, "cpu")


def test_shards_count_together_and_only_those_of_the_last_run(tmp_path: Path) -> None:
    path = made(tmp_path / "completions/m/d/t/a/single/greedy.parquet", "cpu")
    place = tmp_path / "benchmarks/completions/m/d/t/a/single"
    for shard in range(3):
        benchmark(place / f"greedy.{shard}-of-3.jsonl", 1e6, at=shard)
    benchmark(place / "greedy2.jsonl", 1e6, at=20)  # another decoding
    benchmark(place / "greedy.0-of-2.jsonl", 9.0, 1800.0, at=8)
    benchmark(place / "greedy.1-of-2.jsonl", 1800.0, at=9)
    one = hours(tmp_path, {"completions": [path]}, {}).iloc[0]
    assert (one["work"], one["decoding"], one["jobs"], one["hours"]) == ("single", "greedy", 2, 1.0)


def test_without_a_benchmark_file_the_hours_are_not_known(tmp_path: Path) -> None:
    path = made(tmp_path / "ships/m/d/t/a.parquet", "cpu")
    one = hours(tmp_path, {"ships": [path]}, {}).iloc[0]
    assert one["jobs"] == 0 and pd.isna(one["hours"])
