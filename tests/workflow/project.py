"""The real Snakemake on tiny_a, in folders of its own: each project is a copy of the workflow with a small study."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY / "tests" / "data"
WORKFLOW = ("Snakefile", "rules", "workflow", "profiles", "envs", "config")

Settings = dict[str, Any]


def small_study() -> Settings:
    """Every stage once: three queries, four plans, sampled completions of six tokens."""
    return {
        "models": {"tiny": {"path": "tiny_a", "dtype": "float32"}},
        "datasets": {"neutral": {"path": "neutral.csv", "query": "input"}},
        "templates": {"plainly": {"text": "{query}"}},
        "decodings": {"short": {"top_k": 5, "samples": 2, "max_new_tokens": 6}},
        "judges": {"own": {"kind": "keywords", "list": ["No way"]}},
        "head_sets": {"mine": ["L00H01", "L02H03"]},
        "attribution": {"steps": 2},
        "studies": {
            "main": {
                "models": ["tiny"],
                "datasets": ["neutral"],
                "templates": ["plainly"],
                "ablations": ["undifferentiated"],
                "plans": ["none", "ships-1", "sahara-2", "mine"],
                "decodings": ["short"],
                "judges": ["paper", "own"],
            }
        },
    }


class Finished(NamedTuple):
    """How a run ended, and what the terminal would show."""

    status: int
    output: str


class Project:
    """A folder with the workflow, tiny_a, queries and `study.yaml`, in which Snakemake runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}  # of its runs, besides that of the tests
        self.results = folder / "results"

    @classmethod
    def create(cls, folder: Path, settings: Settings | None = None, checkout: Path = REPOSITORY) -> "Project":
        """A fresh copy of the workflow of `checkout`, without results."""
        folder.mkdir(parents=True)
        for name in WORKFLOW:
            source = checkout / name
            if source.is_dir():
                shutil.copytree(
                    source, folder / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
                )
            else:
                shutil.copy(source, folder / name)
        project = cls(folder)
        shutil.copytree(DATA / "tiny_a", folder / "tiny_a", copy_function=shutil.copy)
        project.write_queries("neutral.csv", 3)
        project.configure(settings or small_study())
        return project

    def copy(self, folder: Path) -> "Project":
        """A copy with results, Snakemake's records and time stamps, to be changed at will."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def configure(self, settings: Settings) -> None:
        (self.folder / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def write_queries(self, name: str, count: int, first: int = 0) -> None:
        """Write `count` of the 16 sentences of queries.csv, from number `first` on."""
        with (DATA / "queries.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([rows[0], *rows[1:][first : first + count]])

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace `old`, which must be there, everywhere in a file."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} does not hold {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def start(self, *arguments: str, configfile: str | None = "study.yaml") -> subprocess.Popen[str]:
        """Start Snakemake on one core, or as a profile says, in a process group of its own."""
        where = [] if "--workflow-profile" in arguments else ["--cores", "1"]
        named = ["--configfile", configfile] if configfile else []
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *where, *arguments, *named],
            cwd=self.folder,
            env=environment | {"HF_HUB_OFFLINE": "1"} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, configfile: str | None = "study.yaml") -> Finished:
        """Run Snakemake to its end."""
        process = self.start(*arguments, configfile=configfile)
        try:
            output, _ = process.communicate(timeout=1800)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Finished(process.returncode, output)

    def make(self, *arguments: str, configfile: str | None = "study.yaml") -> dict[str, int]:
        """Run Snakemake, which must succeed. Returns how many jobs of each rule were run."""
        result = self.run(*arguments, configfile=configfile)
        assert result.status == 0, result.output[-5000:]
        return jobs(result.output)

    def outputs(self) -> dict[str, bool]:
        """Every output of the study, below results and without ending, and whether a run would make it (again)."""
        summary = self.run("--summary").output.splitlines()
        header = next(number for number, line in enumerate(summary) if line.startswith("output_file\t"))
        rows = [line.split("\t") for line in summary[header + 1 :] if line.startswith("results/")]
        return {re.sub(r"^results/|\.\w+$", "", row[0]): row[-1] == "update pending" for row in rows}

    def pending(self) -> set[str]:
        """The outputs that a run would make (again)."""
        return {output for output, pending in self.outputs().items() if pending}

    def read(self, artefact: str) -> pd.DataFrame:
        """An artefact, by its path below results without ending."""
        return pq.read_table(self.results / f"{artefact}.parquet", partitioning=None).to_pandas()

    def describe(self, model: str) -> dict[str, Any]:
        """What is recorded about a model."""
        return json.loads((self.results / "models" / f"{model}.json").read_text(encoding="utf-8"))

    def artefacts(self) -> dict[str, bytes]:
        """The content of every parquet file, by its path below results without ending."""
        return {
            str(path.relative_to(self.results).with_suffix("")): path.read_bytes()
            for path in sorted(self.results.rglob("*.parquet"))
        }

    def temporary_files(self) -> list[Path]:
        """What should not outlive a job: files and folders below results with hidden names, but what judges keep."""
        kept = (path for path in self.results.rglob(".*") if path.suffix != ".known")
        return [path for path in kept if path.name != ".snakemake_timestamp"]


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Project]) -> Project:
    """A project that one of pytest's workers makes in a new folder, and all of them use.

    The others wait for it. Its tests must leave it as it is, or work on a copy.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / f"{name}.made").exists():
            shutil.rmtree(folder / name, ignore_errors=True)  # of a worker whose attempt failed
            make(folder / name)
            (folder / f"{name}.made").touch()
    return Project(folder / name)


def jobs(output: str) -> dict[str, int]:
    """Jobs by rule, as in the table `Job stats` of Snakemake's output; empty if nothing was to be done."""
    table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.+?)\ntotal", output, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in output, output[-5000:]
        return {}
    rows = [line.split() for line in table[1].splitlines()]
    return {rule: int(count) for rule, count in rows}


def downloaded(project: Project, url: str, sha256: str) -> None:
    """Make the study's data set one that is downloaded."""
    settings = small_study()
    settings["datasets"]["neutral"] = {"url": url, "sha256": sha256, "query": "input"}
    project.configure(settings)


def parts(project: Project, cell: str) -> list[Path]:
    """The parts of an unfinished cell."""
    return list((project.results / cell).parent.glob(".*.parts-*/*.npy"))


def kill_within_job(project: Project, cell: str, made: int) -> None:
    """Kill Snakemake and its job, with no chance to clean up, once so many parts (batches or layers) are made."""
    deadline = time.monotonic() + 120
    process = project.start(f"results/{cell}.parquet")
    while len(parts(project, cell)) < made:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
