"""Find mistakes in the settings for a Slurm cluster before the first job is sent.

Without these checks such a mistake would show hours later, silently, or as a run that waits for ever. This module knows
the commands of Slurm. All of its checks raise SafetyHeadsError, which says what to change.
"""

import getpass
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.jobs.slurm_commands import SETTINGS, said, works
from safetyheads.jobs.slurm_requests import check_request, request

OPTION = "--workflow-profile"


def check_profile(arguments: Sequence[str], folders: Collection[Path]) -> None:
    """Raise SafetyHeadsError if the command line names a profile that does not exist.

    Snakemake would go on without the profile, and compute on this machine instead of the cluster. `arguments` is the
    command line, `folders` are those in which profiles lie. The path of a profile is allowed as well.
    """
    known = {file.parent.name for folder in folders for file in folder.glob("*/config*.yaml")}
    for name in _profiles(arguments):
        if name != "none" and not any((folder / name).exists() for folder in (Path(), *folders)):
            raise SafetyHeadsError(
                f"{OPTION}: found {name!r}, but there is no such profile; allowed: {', '.join(sorted(known))}, or the "
                f"folder of one.{nearest(name, known)} Without it, the jobs would run here, on this machine."
            )


def _profiles(arguments: Sequence[str]) -> Iterator[str]:
    """The values of --workflow-profile. Snakemake also takes shortened forms, such as --workflow-prof."""
    for argument, following in zip(arguments, [*arguments[1:], None]):
        option, equals, value = argument.partition("=")
        if len(option) > len("--workflow-") and OPTION.startswith(option):
            if equals:
                yield value
            elif following is not None:
                yield following


def check_jobs(jobs: Iterable[Mapping[str, Any]], settings: Any, folder: Path) -> None:
    """Raise SafetyHeadsError if Slurm would refuse one of these jobs, or if its end would go unnoticed.

    `jobs` are the resources of each job that Snakemake will send from `folder`; `settings` those of its plugin.
    """
    # The plugin may choose partitions by itself, from a file that says what each of them takes.
    own_choice = settings.partition_config or "SNAKEMAKE_SLURM_PARTITIONS" in os.environ
    wanted: dict[str, set[str]] = {}
    sent: set[tuple[str, ...]] = set()
    clusters: set[str] = set()
    for resources in jobs:
        for partition in str(resources.get("slurm_partition", "")).split(","):
            wanted.setdefault(partition, set()).update(filter(None, [resources.get("gpu_model")]))
        if resources.get("slurm_partition") or not own_choice:
            sent.add(request(resources))
        clusters.add(str(resources.get("clusters", "")))
    check_slurm(
        wanted,
        status_command=settings.status_command,
        seconds_before_status=settings.init_seconds_before_status_checks,
        folder=folder,
        requests=sorted(sent),
        cluster=max(clusters, default=""),
    )


def check_slurm(
    partitions: Mapping[str, Collection[str]],
    *,
    status_command: str,
    seconds_before_status: int,
    folder: Path,
    requests: Collection[Sequence[str]] = (),
    cluster: str = "",
) -> None:
    """Raise SafetyHeadsError if Slurm would refuse jobs sent from `folder`, or if their end would go unnoticed.

    `partitions` maps each partition that jobs ask for to the GPU models that they ask for there (such as `a100`). The
    name `""` stands for no partition, where Slurm, a QOS or a constraint chooses. `requests` are the words that
    different jobs are sent with, as `request` gives them. `status_command` is the profile's way to ask for the state of
    jobs, and `seconds_before_status` the seconds until it is first used. `cluster` is the cluster that jobs are sent
    to, if it is another one than that of this machine.
    """
    if shutil.which("sbatch") is None:
        raise SafetyHeadsError(
            "Slurm's commands (sbatch and others) are not on this machine. Run on the cluster's login node, or leave "
            f"out `{OPTION} slurm` to compute here."
        )
    there = _partitions(cluster)
    if there:
        check_partitions(partitions, there)
    if "" in partitions and shutil.which("sinfo") is None:
        raise SafetyHeadsError(
            f"{SETTINGS}: found no partition, but sinfo, which tells the cluster's own choice, is not on this machine; "
            "allowed: a partition. Set gpu_partition and cpu_partition in the first lines of that file."
        )
    for one in requests:
        check_request(one)
    sacct = works("sacct", "--noheader", "--allocations", "--starttime=now")
    if cluster and status_command == "squeue":
        raise SafetyHeadsError(
            f"{SETTINGS}: found `status: squeue` with `cluster: {cluster}`, but squeue is asked for jobs of this "
            "cluster alone, so the run would wait for ever; allowed: sacct."
        )
    check_status(
        status_command,
        sacct=sacct,
        min_job_age=None if sacct else min_job_age(said("scontrol", "show", "config")),
        seconds=seconds_before_status,
    )
    options = [f"--clusters={cluster}"] if cluster else []
    check_alone(folder, said("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%F|%Z|%k", *options))


def _partitions(cluster: str) -> dict[str, set[str]]:
    """All partitions, hidden ones too, as `offered` gives them; none where no command of this machine tells them."""
    options = [f"--clusters={cluster}"] if cluster else []
    if shutil.which("sinfo"):
        return offered(said("sinfo", "--all", "--noheader", "--format=%R|%G", *options))
    if shutil.which("scontrol"):
        return _configured(said("scontrol", "--all", "--oneliner", *options, "show", "partition"))
    return {}


def offered(sinfo: str) -> dict[str, set[str]]:
    """The GPUs that each partition offers, as Slurm writes them: `gpu:a100:8`.

    `sinfo` is the output of that command, one line of `partition|resources` for each kind of node.
    """
    found: dict[str, set[str]] = {}
    for line in sinfo.splitlines():
        partition, bar, resources = line.strip().partition("|")
        if not bar:  # the name of a cluster
            continue
        parts = re.sub(r"\([^)]*\)", "", resources).split(",")
        found.setdefault(partition, set()).update(part for part in parts if part.startswith("gpu"))
    return found


def _configured(scontrol: str) -> dict[str, set[str]]:
    """The same from `scontrol show partition`, which names models of GPUs only where they are accounted for."""
    lines = [line for line in scontrol.splitlines() if line.startswith("PartitionName=")]
    return {
        line.split()[0].partition("=")[2]: {f"gpu:{model}:1" for model in re.findall(r"gres/gpu:([^=,\s]+)=", line)}
        for line in lines
    }


def check_partitions(wanted: Mapping[str, Collection[str]], there: Mapping[str, Collection[str]]) -> None:
    """Raise SafetyHeadsError if a wanted partition does not exist, or has GPUs but none of a wanted model.

    The name `""` stands for no partition, about which nothing can be said here.

    `wanted` maps partitions to GPU models, `there` maps the cluster's partitions to their GPUs, as `offered` gives
    them.
    """
    for partition, models in wanted.items():
        if partition and partition not in there:
            listed = ", ".join(f"{name} ({' '.join(sorted(gpus)) or 'no GPU'})" for name, gpus in sorted(there.items()))
            raise SafetyHeadsError(
                f"{SETTINGS}: found the partition {partition!r}, which is not there; allowed: {listed}."
                f"{nearest(partition, there)} Set gpu_partition and cpu_partition in the first lines of that file."
            )
        gpus = there.get(partition, ())
        known = {gpu.split(":")[1].lower() for gpu in gpus if gpu.count(":") > 1}
        for model in models:
            if gpus and model.lower() not in known:
                allowed = ", ".join(sorted(known)) or '""'
                raise SafetyHeadsError(
                    f"{SETTINGS}: found gpu_model {model!r}, but partition {partition!r} has "
                    f"{' '.join(sorted(gpus))}; allowed: {allowed}."
                )


def min_job_age(configuration: str) -> int | None:
    """Seconds after which Slurm forgets a job that ended, by the output of `scontrol show config`; None if not told."""
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", configuration, re.MULTILINE)
    return int(found[1]) if found else None


def check_status(command: str, *, sacct: bool, min_job_age: int | None, seconds: int) -> None:
    """Raise SafetyHeadsError if the end of jobs would go unnoticed, so that the run would wait for ever.

    `command` asks for the state of jobs: `sacct` reads the cluster's accounting, `squeue` its queue. `sacct` says
    whether the accounting answers. Without it, only `squeue` is left, and it must be asked before Slurm forgets a job
    that ended: the first time after `seconds`, which may be at most a third of `min_job_age` (both in seconds).
    """
    if sacct:
        return  # also if `command` is squeue: it is replaced by sacct where it would forget jobs
    if command != "squeue":
        raise SafetyHeadsError(
            f"{SETTINGS}: found `status: {command}`, but this cluster has no accounting that answers, so the run would "
            "wait for ever; allowed: squeue. Set it in the first lines of that file."
        )
    if min_job_age is not None and min_job_age < 3 * seconds:
        raise SafetyHeadsError(
            f"{SETTINGS}: found slurm-init-seconds-before-status-checks: {seconds}, but this cluster has no accounting "
            f"and forgets jobs {min_job_age} seconds after their end; allowed: at most {min_job_age // 3}."
        )


def check_alone(folder: Path, squeue: str) -> None:
    """Raise SafetyHeadsError if jobs of an earlier run are still in the queue for this folder.

    `squeue` is that command's output, a line of `job|folder|comment` for each job of the user. A new run does not know
    of these jobs and would compute the same files a second time.
    """
    rows = [line.strip().split("|", 2) for line in squeue.splitlines()]
    jobs = sorted({row[0] for row in rows if len(row) == 3 and Path(row[1]) == folder and row[2].startswith("rule_")})
    if jobs:
        raise SafetyHeadsError(
            f"Jobs of an earlier run that was killed are still in Slurm's queue: {', '.join(jobs)}. They would be run "
            f"twice. Either wait until they have ended (`squeue`): what they make is used. Or end them: `scancel "
            f"{' '.join(jobs)}`: finished batches are kept. Then start again."
        )
