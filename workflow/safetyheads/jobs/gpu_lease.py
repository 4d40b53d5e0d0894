"""Share the GPUs of one machine out among its jobs, so that no two jobs use the same one.

Snakemake counts GPUs, and starts a second job while one is free, but it does not tell a job which one to use. Without
this module both would take GPU 0.

A job holds a lock on a file for each of its GPUs, by filelock. These are locks of the kernel (flock), which frees them
when the process ends, even if it is killed, so no GPU stays taken by mistake. The files lie in the machine's folder for
temporary files, which is on a local disk as a rule. GPUs are shared out within one machine, so that it does no harm if
that folder is on a network file system whose locks hold on each machine by itself. Where it has no such locks at all,
filelock uses files as locks, and takes over those of a process that is gone. The lock files are a user's own. Where
several users share a machine, a scheduler such as Slurm must give each job GPUs of its own.
"""

import atexit
import csv
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

log = logging.getLogger(__name__)

PAUSE = 1.0  # seconds between two looks for a free GPU
_held = ExitStack()
atexit.register(_held.close)


def take(device: str, count: int) -> str:
    """Lease `count` GPUs until the process ends. Must be called before CUDA is initialised.

    `device` is what `compute: device` says: `auto` and `cuda` wait for any GPUs that are free, `cuda:2` waits for
    `count` GPUs from number 2 on. CUDA_VISIBLE_DEVICES then shows CUDA the leased GPUs alone, so the device to compute
    on is `cuda`, and that is returned. Where nothing can be leased, because the job runs on the CPU, there are too few
    GPUs or there is no nvidia-smi, `device` itself is returned.
    """
    devices = visible(os.environ, list_gpus()) if device != "cpu" else []
    if device.startswith("cuda:"):
        first = int(device.removeprefix("cuda:"))
        devices = devices[first : first + count]
    if not devices or len(devices) < count:
        return device
    if len(devices) > count or "SLURM_JOB_ID" not in os.environ:  # else Slurm gave exactly these to this job alone
        folder = Path(tempfile.gettempdir()) / f"safetyheads-gpus-{os.getuid()}-{platform.node()}"
        devices = _held.enter_context(lease(devices, count, folder))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    log.info("GPUs of this job: %s", ", ".join(devices))
    return "cuda"


@contextmanager
def lease(devices: Sequence[str], count: int, folder: Path) -> Iterator[list[str]]:
    """Wait until `count` of `devices` are free, hold them during the block, and yield them in the order of `devices`.

    `folder`, made if needed, has a lock file for each device and one for the queue. Only the job that holds the queue's
    lock may take devices, and it takes them as they become free until it has enough. The others hold nothing while they
    wait. So two jobs that want two GPUs each can never hold one each and wait for the other for ever. Raises ValueError
    if `count` is not between 1 and the number of devices.
    """
    if not 1 <= count <= len(devices):
        raise ValueError(f"{count} of {len(devices)} devices cannot be leased")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks = {device: FileLock(folder / f"{device.replace('/', '-')}.lock") for device in devices}
    queue = FileLock(folder / "queue.lock")
    with ExitStack() as held:
        told = not _locked(queue)
        if told:
            log.info("Waiting for a GPU: other jobs are before this one.")
            queue.acquire(poll_interval=PAUSE)
        try:
            taken: set[str] = set()
            while True:
                for device in devices:
                    if len(taken) < count and device not in taken and _locked(locks[device]):
                        held.callback(locks[device].release)
                        taken.add(device)
                if len(taken) == count:
                    break
                if not told:
                    log.info("Waiting for a GPU: %d of %d are free, of %d.", len(taken), count, len(devices))
                    told = True
                time.sleep(PAUSE)
        finally:
            queue.release()
        yield [device for device in devices if device in taken]


def _locked(lock: BaseFileLock) -> bool:
    """Try to take a lock, without waiting. Returns whether it succeeded."""
    with suppress(Timeout):
        lock.acquire(blocking=False)
    return lock.is_locked


def visible(environment: Mapping[str, str], gpus: Sequence[str]) -> list[str]:
    """The ids of the GPUs that CUDA shows to a process with these environment variables.

    `gpus` are the ids of all GPUs, in the order of their numbers. CUDA_VISIBLE_DEVICES, if it is set, lists numbers,
    ids or beginnings of ids. As in CUDA itself, an entry that is unknown or ambiguous ends the list: what follows it is
    not seen. With `["GPU-a", "GPU-b"]`, the value `1,7,0` gives `["GPU-b"]`.
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
    """The ids (`GPU-...`) of the machine's GPUs, in nvidia-smi's order of numbers; none without nvidia-smi.

    By default CUDA numbers GPUs by speed. This function sets CUDA_DEVICE_ORDER so that both number them in the same
    way.
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
