"""With which words jobs are sent to Slurm, and whether it would take them.

Which partition, account, QOS, constraint or licence a job may use is the business of each cluster. So Slurm itself is
asked, by `sbatch --test-only`, which sends nothing.
"""

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.slurm_commands import SETTINGS
from safetyheads.jobs.slurm_commands import said as ask

_WORDS = {
    "slurm_partition": "--partition",
    "slurm_account": "--account",
    "qos": "--qos",
    "constraint": "--constraint",
    "clusters": "--clusters",
    "gres": "--gres",
    "gpu_model": "",
    "slurm_extra": "",
}
"""Resource of a job -> the option of sbatch that Snakemake's plugin makes of it, if it is a single one."""

_OWN = {
    **dict.fromkeys(["--partition", "-p"], "gpu_partition and cpu_partition"),
    **dict.fromkeys(["--account", "-A"], "account"),
    **dict.fromkeys(["--qos", "-q"], "qos and gpu_qos"),
    **dict.fromkeys(["--constraint", "-C"], "constraint and gpu_constraint"),
    **dict.fromkeys(["--clusters", "-M"], "cluster"),
    **dict.fromkeys(["--gpus", "-G"], "gpu_model, or --gpus-per-node among the extra words"),
    "--gres": "gres, or --gpus-per-node among the extra words",
    **dict.fromkeys(["--time", "-t"], "longest"),
    **dict.fromkeys(["--mem", "--mem-per-cpu"], "mem_mb under set-resources"),
    **dict.fromkeys(["--nodes", "-N", "--ntasks", "-n", "--cpus-per-task", "-c"], "none, as each job is one task"),
    **dict.fromkeys(["--job-name", "-J", "--output", "-o", "--error", "-e", "--comment", "--export"], "none"),
    **dict.fromkeys(["--parsable", "--workdir", "-D"], "none"),
}
"""Option of sbatch that may not be among extra words -> what is set instead."""

_REFUSALS = {
    "invalid partition": "gpu_partition and cpu_partition",
    "no partition specified": "gpu_partition and cpu_partition",
    "not permitted to use this partition": "gpu_partition and cpu_partition (or account)",
    "invalid account": "account",
    "invalid qos": "qos and gpu_qos",
    "accounting/qos policy": "qos, gpu_qos or longest",
    "invalid feature": "constraint and gpu_constraint",
    "invalid license": "extra and gpu_extra",
    "reservation is invalid": "extra and gpu_extra",
    "invalid generic resource": "gpu_model or gres",
    "invalid gres": "gpu_model or gres",
    "unrecognized option": "extra and gpu_extra",
    "invalid option": "extra and gpu_extra",
    "invalid entry for --cluster": "cluster",
    "access/permission denied": "account or gpu_partition",
}
"""What Slurm says of a job that it will never take -> the words of the profile that change it."""


def request(resources: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that say where a job with these resources is sent; those of time and memory are left out.

    Raises SafetyHeadsError for words that Snakemake's plugin for Slurm refuses, which it would do at each job.
    """
    given = {name: str(resources.get(name) or "") for name in _WORDS}
    gpus, model = resources.get("gpu"), given["gpu_model"]
    for key, pattern in (("gpu_model", r"[\w.]*"), ("gres", r"(?:\w+(?::[\w.]+)?(?::\d+[TGM]?)?)?")):
        if re.fullmatch(pattern, given[key], re.ASCII) is None:
            instead = f"--gpus-per-node={model or given[key].removeprefix('gpu:')}"
            instead += ":1" if key == "gpu_model" else ""
            raise SafetyHeadsError(
                f"{SETTINGS}: found {key} {given[key]!r}, which Snakemake's plugin for Slurm does not take; allowed: "
                f"letters, digits, '_' and '.'. Set {key} to \"\" and gpu_extra to \"{instead}\", or choose nodes by "
                "gpu_constraint."
            )
    extra = shlex.split(given["slurm_extra"])
    for word in extra:
        option = word.partition("=")[0]
        if own := _OWN.get(option if option.startswith("--") else option[:2]):
            raise SafetyHeadsError(
                f"{SETTINGS}: found {option} among extra words, which Snakemake's plugin for Slurm says itself; "
                f"allowed: {own}, in the first lines of that file."
            )
    words = [f"{option}={given[name]}" for name, option in _WORDS.items() if option and given[name]]
    if model or (gpus and not given["gres"]):
        words.append(f"--gpus={model}{':' if model else ''}{gpus or 1}")
    return (*words, *extra)


def check_request(words: Sequence[str]) -> None:
    """Raise SafetyHeadsError if Slurm says that it would refuse a job with these words; none is sent.

    What Slurm says of nodes that are busy, down or drained is no reason: they may be back when the job's turn comes.
    """
    default = [] if any(word.startswith("--partition=") for word in words) else _default_partition(words)
    try:
        done = subprocess.run(
            ["sbatch", "--test-only", *default, *words, "--ntasks=1", "--wrap=true"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    said = " ".join(done.stderr.split())
    if done.returncode == 0:
        return
    for reason, setting in _REFUSALS.items():
        if reason in said.lower():
            raise SafetyHeadsError(
                f"{SETTINGS}: Slurm refuses jobs with {shlex.join([*default, *words]) or 'nothing said'}: {said!r}. "
                f"Set {setting} in the first lines of that file."
            )


def _default_partition(words: Sequence[str]) -> list[str]:
    """The partition that the plugin names where the profile does not: the cluster's default, if it shows one."""
    clusters = [word for word in words if word.startswith("--clusters=")]
    try:
        listed = ask("sinfo", "--noheader", "--format=%P", *clusters).split()
    except SafetyHeadsError:
        return []
    return [f"--partition={name.rstrip('*')}" for name in listed if name.endswith("*")][:1]
