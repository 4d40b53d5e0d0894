"""A real Slurm on this machine for the length of the tests: one node with two GPUs that can be counted, no accounting.

Needs root, Debian's packages slurm-wlm and munge (installed if missing) and no systemd. Files and daemons are all its
own, but for /etc/slurm: job steps look for their configuration there. A Slurm that is not of these tests is left alone.
"""

import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
LOCK = Path("/run/lock/safetyheads-slurm")
PACKAGES = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"}
CLUSTER, PARTITION, CPU_PARTITION, MODEL, GPUS = "safetyheads-tests", "a100", "cpu", "a100", 2

CONFIGURATION = """
ClusterName={cluster}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job starts again once its old credentials have expired.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# Processes are followed without cgroups, and killed when they take more memory than they asked for.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
KillWait=2
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:{model}:{gpus} State=UNKNOWN
PartitionName={partition} Nodes={host} MaxTime=INFINITE State=UP
PartitionName={cpu_partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class CannotStart(Exception):
    """Why there can be no Slurm here."""


class Slurm:
    """The running Slurm: `call` runs its commands, `stop_node` and `start_node` are the power switch of its node."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.host = folder, socket.gethostname().split(".")[0]

    def call(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def jobs(self, *states: str) -> list[str]:
        """The jobs in these states; by default those that are not over."""
        chosen = ",".join(states) or "PENDING,RUNNING,COMPLETING,SUSPENDED"
        return self.call("squeue", "--noheader", "--format=%i", f"--states={chosen}").split()

    def detail(self, job: str) -> dict[str, str]:
        """All that Slurm says about a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).splitlines()[0].split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def start_node(self) -> None:
        subprocess.run(["slurmd", "-N", self.host], check=True)
        self.wait_until(lambda: self.node_state().startswith(("idle", "mix", "alloc")), "the node did not come up")

    def stop_node(self) -> None:
        """The node dies: its daemon, and every process of its jobs."""
        _kill(_pid(self.folder / "slurmd.pid"))
        _kill_jobs()

    def node_state(self) -> str:
        return self.call("sinfo", "--noheader", "--Node", "--partition", PARTITION, "--format=%T").strip()

    def wait_until(self, holds: object, otherwise: str, seconds: float = 60) -> None:
        """Wait for a condition (a function without arguments)."""
        deadline = time.monotonic() + seconds
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < deadline, otherwise
            time.sleep(0.05)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start it, and stop it whatever happens. Raises CannotStart, with the reason, where that is not possible."""
    _install()
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time on a machine
        started = Slurm(folder)
        try:
            _start(started)
            yield started
        finally:
            _stop(started)


def _install() -> None:
    if os.geteuid() != 0:
        raise CannotStart("a Slurm is started by root only: its daemons run as root here")
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if missing:
        if shutil.which("apt-get") is None:
            raise CannotStart(f"{' and '.join(missing)} are not installed, and there is no apt-get to install them")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise CannotStart(f"apt-get {command[0]} failed: {done.stderr.strip()[-500:]}")
    LOCK.parent.mkdir(parents=True, exist_ok=True)


def _start(slurm: Slurm) -> None:
    folder = slurm.folder
    for name in ("munge", "state", "spool", "devices"):
        (folder / name).mkdir(parents=True)
    for number in range(GPUS):  # a GPU is counted by its device file
        os.mknod(folder / "devices" / f"nvidia{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    ETC.mkdir(exist_ok=True)
    (folder / "gres.conf").write_text(
        f"NodeName={slurm.host} Name=gpu Type={MODEL} File={folder}/devices/nvidia[0-{GPUS - 1}]\n"
    )
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            cluster=CLUSTER,
            host=slurm.host,
            folder=folder,
            ports=_free_ports(2),
            model=MODEL,
            gpus=GPUS,
            partition=PARTITION,
            cpu_partition=CPU_PARTITION,
        )
    )
    for name in FILES:
        link = ETC / name
        if link.is_symlink():  # of tests that were killed
            link.unlink()
        elif link.exists():
            raise CannotStart(f"{link} is there: this machine belongs to a Slurm already")
        link.symlink_to(folder / name)
    _munge(folder / "munge")
    subprocess.run(["slurmctld", "-c"], check=True)
    slurm.wait_until(lambda: subprocess.run(["scontrol", "ping"], capture_output=True).returncode == 0, "no controller")
    slurm.start_node()


def _munge(folder: Path) -> None:
    """The daemon that vouches for users, with a key of its own."""
    folder.chmod(0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    subprocess.run(
        [
            "munged",
            "--force",
            f"--socket={folder}/socket",
            f"--key-file={key}",
            f"--pid-file={folder}/pid",
            f"--log-file={folder}/log",
            f"--seed-file={folder}/seed",
        ],
        check=True,
    )


def _stop(slurm: Slurm) -> None:
    with suppress(Exception):
        subprocess.run(["scancel", "--user=root", "--full"], timeout=10, capture_output=True)
        slurm.wait_until(lambda: not slurm.jobs(), "jobs would not go", seconds=10)
    _kill_jobs()
    for file in ("slurmd.pid", "slurmctld.pid", "munge/pid"):
        _kill(_pid(slurm.folder / file), signal.SIGTERM)
    for name in FILES:
        if (ETC / name).is_symlink():
            (ETC / name).unlink()


def _pid(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _kill(pid: int | None, by: signal.Signals = signal.SIGKILL) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, by)


def _kill_jobs() -> None:
    """End what jobs have started, also what has lost its parents, and the processes of Slurm that watch over it."""
    mark = f"SLURM_CLUSTER_NAME={CLUSTER}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes() or (folder / "comm").read_text() == "slurmstepd\n":
                _kill(int(folder.name))


def _free_ports(count: int) -> list[int]:
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
