"""GPUs of one machine, shared out among jobs: Snakemake counts GPUs, but does not say which one a job is to use.

A job holds an advisory lock on a file for each of its GPUs. The kernel frees the locks when the job ends, however it
ends. Jobs of one user see each other; those of several users need a scheduler, such as Slurm, which gives each job GPUs
of its own.
"""

import atexit
import csv
import fcntl
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two looks for a free GPU
_held = ExitStack()
atexit.register(_held.close)


def take(device: str, count: int) -> str:
    """Lease `count` GPUs for the rest of the process, as `compute: device` wants, before CUDA is initialised.

    `auto` and `cuda` wait for any that are free, `cuda:N` for those from the N-th on. CUDA then sees these alone.
    Returns the device that is meant now: `cuda`; or `device` itself where nothing can be leased: on the CPU, without
    GPUs that are enough, or without nvidia-smi.
    """
    devices = visible(os.environ, list_gpus()) if device != "cpu" else []
    if device.startswith("cuda:"):
        first = int(device.removeprefix("cuda:"))
        devices = devices[first : first + count]
    if not devices or len(devices) < count:
        return device
    if len(devices) > count or "SLURM_JOB_ID" not in os.environ:  # else they are this job's own
        folder = Path(tempfile.gettempdir()) / f"safetyheads-gpus-{os.getuid()}"
        devices = _held.enter_context(lease(devices, count, folder))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    log.info("GPUs of this job: %s", ", ".join(devices))
    return "cuda"


@contextmanager
def lease(devices: Sequence[str], count: int, folder: Path) -> Iterator[list[str]]:
    """Wait until `count` of `devices` are free, and hold them. Yields them, in the order of `devices`.

    `folder`, made if needed, has a lock file for each device and one for the queue: who is at its head takes what
    becomes free until it has enough; the others hold nothing while they wait, so nobody waits for each other.
    """
    if not 1 <= count <= len(devices):
        raise ValueError(f"{count} of {len(devices)} devices cannot be leased")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as locks:
        with (folder / "queue.lock").open("a") as queue:
            told = not _locked(queue)
            if told:
                log.info("Waiting for a GPU: other jobs are before this one.")
                fcntl.flock(queue, fcntl.LOCK_EX)
            held: dict[str, IO[str]] = {}
            while len(held) < count:
                for device in devices:
                    if len(held) < count and device not in held:
                        file = (folder / f"{device.replace('/', '-')}.lock").open("a")
                        if _locked(file):
                            held[device] = locks.enter_context(file)
                        else:
                            file.close()
                if len(held) < count:
                    if not told:
                        log.info("Waiting for a GPU: %d of %d are free, of %d.", len(held), count, len(devices))
                        told = True
                    time.sleep(PAUSE)
        yield [device for device in devices if device in held]


def _locked(file: IO[str]) -> bool:
    """Lock a file if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def visible(environment: Mapping[str, str], gpus: Sequence[str]) -> list[str]:
    """The GPUs that CUDA shows to this process, by their ids, as CUDA_VISIBLE_DEVICES says: numbers or ids.

    `gpus` are the ids of all, in the order of their numbers. As with CUDA, what follows an unknown entry is not seen.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(gpus)
    found: list[str] = []
    for entry in (text.strip() for text in wanted.split(",")):
        if entry.isdigit():
            matching = list(gpus[int(entry) : int(entry) + 1])
        elif entry.startswith("MIG-"):
            matching = [entry]
        else:
            matching = [gpu for gpu in gpus if entry and gpu.startswith(entry)]
        if len(matching) != 1:
            break
        found += matching
    return found


def list_gpus() -> list[str]:
    """The ids (`GPU-...`) of the machine's GPUs, in the order of their numbers; none without nvidia-smi.

    CUDA is told to number them alike.
    """
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        log.warning("nvidia-smi fails, so GPUs are not shared out: %s", (done.stderr or done.stdout).strip())
        return []
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    rows = [(int(row[0]), row[1].strip()) for row in csv.reader(done.stdout.splitlines()) if len(row) == 2]
    return [uuid for _, uuid in sorted(rows)]
