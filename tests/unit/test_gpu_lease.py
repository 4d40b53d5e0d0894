"""GPUs are shared out among real processes: all are used, none twice, and a killed job's is free again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from select import select

import pytest

from safetyheads.jobs.gpu_lease import lease, list_gpus, visible

HOLD = """
import fcntl, logging, os, sys
if "WITHOUT_FLOCK" in os.environ:
    def flock(*_): raise OSError(38, "Function not implemented")
    fcntl.flock = flock
from pathlib import Path
from safetyheads.jobs import gpu_lease
gpu_lease.PAUSE = 0.02
logging.basicConfig(stream=sys.stderr, level=logging.INFO)
with gpu_lease.lease(sys.argv[3].split(","), int(sys.argv[2]), Path(sys.argv[1])) as chosen:
    print(",".join(chosen), flush=True)
    sys.stdin.read()
"""
FOUR = "a,b,c,d"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a job that leases devices, says which, and holds them until its input ends."""
    jobs: list[subprocess.Popen[str]] = []

    def job(count: int = 1, devices: str = FOUR) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(tmp_path / "locks"), str(count), devices]
        pipe = subprocess.PIPE
        jobs.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return jobs[-1]

    yield job
    for running in jobs:
        running.kill()
        running.communicate()


def chosen(job: "subprocess.Popen[str]") -> list[str]:
    """What a job has leased; waits for it."""
    assert job.stdout is not None
    return job.stdout.readline().strip().split(",")


def waits(job: "subprocess.Popen[str]") -> None:
    """Returns once the job says that it waits."""
    assert job.stderr is not None
    assert "Waiting for a GPU" in job.stderr.readline()


def end(job: "subprocess.Popen[str]") -> None:
    job.communicate("", timeout=60)
    assert job.returncode == 0


def test_four_jobs_use_four_devices_at_the_same_time(start: Start) -> None:
    jobs = [start() for _ in range(4)]
    assert sorted(device for job in jobs for device in chosen(job)) == ["a", "b", "c", "d"]


def test_a_killed_jobs_device_is_free_again(start: Start) -> None:
    jobs = [start() for _ in range(4)]
    devices = [chosen(job) for job in jobs]
    waiting = start()
    waits(waiting)
    os.kill(jobs[2].pid, signal.SIGKILL)
    assert chosen(waiting) == devices[2]


def test_where_a_file_system_has_no_locks_devices_are_shared_out_all_the_same(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WITHOUT_FLOCK", "1")
    jobs = [start(devices="a,b") for _ in range(2)]
    assert sorted(chosen(job)[0] for job in jobs) == ["a", "b"]
    waiting = start(devices="a,b")
    jobs[0].kill()
    jobs[0].wait(60)
    assert chosen(waiting) in (["a"], ["b"])


def test_more_jobs_than_devices_queue_and_all_get_their_turn(start: Start) -> None:
    jobs = [start(devices="a,b") for _ in range(5)]
    while jobs:
        ready = _ready(jobs)
        assert chosen(ready) in (["a"], ["b"])
        jobs.remove(ready)
        end(ready)


def _ready(jobs: "list[subprocess.Popen[str]]") -> "subprocess.Popen[str]":
    """A job that has said what it leased."""
    streams = {job.stdout: job for job in jobs}
    found, _, _ = select(list(streams), [], [], 60)
    assert found, "no job got a device within a minute"
    return streams[found[0]]


def test_jobs_of_several_devices_do_not_wait_for_each_other(start: Start) -> None:
    """Each needs two of three: if two of them held one and waited for another, nobody would end."""
    jobs = [start(count=2, devices="a,b,c") for _ in range(4)]
    while jobs:
        ready = _ready(jobs)
        devices = chosen(ready)
        assert len(set(devices)) == 2
        jobs.remove(ready)
        end(ready)


def test_a_job_at_the_head_of_the_queue_gets_what_becomes_free(start: Start) -> None:
    """A job of all devices is not starved by jobs of one."""
    small = [start(devices="a,b") for _ in range(2)]
    for job in small:
        chosen(job)
    large = start(count=2, devices="a,b")
    waits(large)
    late = start(devices="a,b")
    waits(late)
    end(small[0])
    time.sleep(0.2)
    end(small[1])
    assert chosen(large) == ["a", "b"]
    end(large)
    assert chosen(late) in (["a"], ["b"])


def test_a_lease_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with lease(["a"], 1, tmp_path) as devices:
            assert devices == ["a"]
    with pytest.raises(ValueError), lease(["a"], 2, tmp_path):
        pass


GPUS = ["GPU-11aa", "GPU-22bb", "GPU-33cc"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, GPUS),
        ("", []),
        ("-1", []),
        ("1", GPUS[1:2]),
        ("2,0", [GPUS[2], GPUS[0]]),
        ("GPU-33, GPU-11aa", [GPUS[2], GPUS[0]]),
        ("0,7,1", GPUS[:1]),  # CUDA sees nothing behind an unknown one
        ("GPU-", []),
        ("MIG-44", ["MIG-44"]),
    ],
)
def test_only_what_cuda_shows_is_leased(wanted: str | None, expected: list[str]) -> None:
    environment = {} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted}
    assert visible(environment, GPUS) == expected


TAKE = """
import os, sys
from safetyheads.jobs import gpu_lease
print(gpu_lease.take(sys.argv[1], int(sys.argv[2])), os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pretended(tmp_path: Path) -> dict[str, str]:
    """An environment with an nvidia-smi that lists three GPUs, the last one first."""
    script = tmp_path / "nvidia-smi"
    lines = "\n".join(f"echo {number}, {GPUS[number]}" for number in (2, 0, 1))
    script.write_text(f"#!/bin/sh\n{lines}\n")
    script.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("CUDA", "SLURM"))}
    return kept | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}


def taken(environment: dict[str, str], device: str, count: int) -> "tuple[subprocess.Popen[str], str]":
    command = [sys.executable, "-c", TAKE, device, str(count)]
    pipe = subprocess.PIPE
    job = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
    assert job.stdout is not None
    return job, job.stdout.readline().strip()


def test_a_job_sees_the_gpus_that_it_leased_alone(pretended: dict[str, str]) -> None:
    asked = [("cuda:1", 1), ("auto", 1), ("cuda", 1)]
    jobs = [taken(pretended, *wanted) for wanted in asked]
    assert [said for _, said in jobs] == [f"cuda {GPUS[1]}", f"cuda {GPUS[0]}", f"cuda {GPUS[2]}"]
    for job, _ in jobs:
        end(job)


@pytest.mark.parametrize(
    ("device", "count", "more", "expected"),
    [
        ("cpu", 1, {}, "cpu None"),
        ("cuda:7", 1, {}, "cuda:7 None"),  # `models.load` says that it is not there
        ("auto", 4, {}, "auto None"),
        ("cuda:1", 2, {}, f"cuda {GPUS[1]},{GPUS[2]}"),
        ("auto", 1, {"CUDA_VISIBLE_DEVICES": "2"}, f"cuda {GPUS[2]}"),
        ("auto", 1, {"CUDA_VISIBLE_DEVICES": ""}, "auto "),
    ],
)
def test_what_cannot_be_leased_is_left_to_the_loader(
    device: str, count: int, more: dict[str, str], expected: str, pretended: dict[str, str]
) -> None:
    job, said = taken(pretended | more, device, count)
    assert said == expected.strip()
    end(job)


def test_a_slurm_job_uses_its_own_gpu_without_waiting(pretended: dict[str, str]) -> None:
    own = pretended | {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "1"}
    jobs = [taken(own, "auto", 1) for _ in range(2)]
    assert [said for _, said in jobs] == [f"cuda {GPUS[1]}"] * 2
    for job, _ in jobs:
        end(job)


def test_a_broken_nvidia_smi_leases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho no driver\nexit 9\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert list_gpus() == []
