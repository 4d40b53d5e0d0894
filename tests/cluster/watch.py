"""What Snakemake's jobs do while they run: seen from outside, by Slurm's queue, the processes and the parts on disk."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from slurm import Slurm


class Process(NamedTuple):
    """A process that works on an artefact; the Slurm job that it belongs to, `12` or `12_3`, none outside Slurm; and
    whether its environment keeps it from asking Hugging Face.
    """

    pid: int
    artefact: str
    job: str | None
    offline: bool


class Watch:
    """Watches a project until the block ends; `faults` are called again and again until they return true, once each."""

    def __init__(self, slurm: Slurm, results: Path, faults: dict[str, Callable[["Watch"], bool]] | None = None) -> None:
        self.slurm, self.results, self.pending = slurm, results, dict(faults or {})
        self.done: list[str] = []
        self.made: dict[str, set[tuple[int, int]]] = defaultdict(set)  # part -> each file that it was
        self.workers: set[Process] = set()
        self.at_once: list[int] = []  # GPU jobs that run, at each look
        self.requests: dict[str, set[str]] = {}  # running job -> GPUs that it was given
        self._end = threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        last = 0.0
        while not self._end.is_set():
            self._look_at_parts()
            if time.monotonic() - last > 0.3:
                self._look_at_queue()
                self.workers |= set(self.processes())
                self._look_at_queue()  # again, so that each process was seen in a job that runs
                last = time.monotonic()
            for name, fault in list(self.pending.items()):
                if fault(self):
                    self.done.append(name)
                    del self.pending[name]
            time.sleep(0.03)

    def _look_at_parts(self) -> None:
        for folder in self.results.glob("*/tiny/*/*/**/.*.parts-*"):
            with suppress(FileNotFoundError):
                for part in os.scandir(folder):
                    if not part.name.startswith("."):
                        status = part.stat()
                        name = str(folder.relative_to(self.results) / part.name)
                        self.made[name].add((status.st_ino, status.st_mtime_ns))

    def _look_at_queue(self) -> None:
        wanted = ",".join(f"{name}:40" for name in ("JobID", "tres-per-job", "tres-per-node"))
        said = self.slurm.call("squeue", "--noheader", "--states=RUNNING", f"--Format={wanted}")
        running = {job: set(gpus) - {"N/A"} for job, *gpus in map(str.split, said.splitlines())}
        self.at_once.append(sum(any("gpu" in gpu for gpu in gpus) for gpus in running.values()))
        self.requests |= running

    def parts(self, artefact: str) -> int:
        """How many parts of an unfinished artefact there are now."""
        path = self.results / artefact
        return len(list(path.parent.glob(f".{path.name}.parquet.parts-*/*.npy")))

    def worker(self, artefact: str) -> Process | None:
        """The process that works on an artefact now."""
        return next((process for process in self.processes() if process.artefact == artefact), None)

    def processes(self) -> Iterator[Process]:
        """The processes that run a script of this project now: each holds the log of its artefact open."""
        logs = self.results / "logs"
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b".snakemake/scripts" not in (folder / "cmdline").read_bytes():
                    continue
                for descriptor in (folder / "fd").iterdir():
                    target = Path(os.readlink(descriptor))
                    if target.is_relative_to(logs):
                        artefact = str(target.relative_to(logs).with_suffix(""))
                        environment = _environment(folder)
                        offline = environment.get("HF_HUB_OFFLINE") == "1"
                        yield Process(int(folder.name), artefact, _job(environment), offline)


def _environment(process: Path) -> dict[str, str]:
    pairs = (entry.split("=", 1) for entry in (process / "environ").read_text(errors="replace").split("\0"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _job(environment: dict[str, str]) -> str | None:
    return environment.get("SLURM_JOB_ID")
