"""What the rules share: wildcards, paths, and short functions that ask `safetyheads.jobs` for them."""

import shutil
import sys

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import PATHS, SHARD, Cells
from safetyheads.jobs.fingerprint import fingerprint
from safetyheads.jobs.planning import hours, rates_to_be_gone
from safetyheads.jobs.resources import Requests, on_gpu
from safetyheads.jobs.slurm_checks import check_slurm
from safetyheads.plans import PLAIN

NAME = r"[A-Za-z0-9][^/]*"


wildcard_constraints:
    model=NAME,
    dataset=NAME,
    template=NAME,
    ablation=NAME,
    plan=NAME,
    decoding=NAME,
    judge=NAME,
    shard=r"\d+",
    shards=r"\d+",


ENVIRONMENT = "../envs/safetyheads.yaml"

cells = Cells(settings)
requests = Requests(settings)


def known(ask, *arguments, **named):
    """What the library answers; a SafetyHeadsError is the user's, and ends the run with its message."""
    try:
        return ask(*arguments, **named)
    except SafetyHeadsError as error:
        sys.exit(str(error))


def given(section, *keys):
    """Params: what the section that a wildcard names says of these keys, or all that it says."""
    return lambda wildcards: known(
        settings.given, f"{section}s", wildcards[section], keys
    )


def code(rule):
    """The fingerprint of a rule's script and of all that it imports."""
    return fingerprint(ROOT / "workflow" / "scripts" / f"{rule}.py")


def dataset_source(wildcards):
    return known(cells.dataset_source, wildcards.dataset)


def model_source(wildcards):
    return known(cells.model_source, wildcards.model)


def chat_template(wildcards):
    return known(settings.chat_template, wildcards.model) or ""


def dtype(wildcards):
    return known(requests.dtype, wildcards.model, on_gpu=jobs_on_gpu())


def heads_of_plan(wildcards):
    return known(cells.plan_settings, wildcards.plan, wildcards.ablation)


def completion_inputs(wildcards):
    """Prompts and model, and the scores that the plan takes its heads from."""
    inputs = known(cells.completion_inputs, wildcards.plan, wildcards.ablation)
    return {name: path.format(**wildcards) for name, path in inputs.items()}


def shard_paths(wildcards):
    """The parts of a cell's completions."""
    count = known(requests.shards, wildcards)
    return [SHARD.format(**wildcards, shard=at, shards=count) for at in range(count)]


def gpus(wildcards):
    return known(requests.gpus, wildcards.model, on_gpu=jobs_on_gpu())


def memory(wildcards, attempt, rulename):
    return known(requests.memory, rulename, wildcards, attempt)


def runtime(wildcards, attempt, rulename):
    """Minutes, within the resource `longest` of a profile."""
    limit = (workflow.resource_settings.default_resources or {}).get("longest")
    longest = None if limit is None else limit.value
    return known(requests.runtime, rulename, wildcards, attempt, longest)


def jobs_on_gpu():
    """Whether jobs run on GPUs; on a cluster's nodes `auto` finds them."""
    there = workflow.remote_exec or by_slurm() or shutil.which("nvidia-smi") is not None
    return on_gpu(settings.compute.device, there=there)


def by_slurm():
    """Whether this process sends jobs to Slurm; known once all rules are read."""
    plugin = workflow.executor_plugin
    return plugin is not None and plugin.name == "slurm"


def announce():
    """Tell on the terminal, once and not in every job, what the run takes, and which rates it loses."""
    if workflow.is_main_process:
        told = hours(settings, cells, on_gpu=jobs_on_gpu())
        gone = rates_to_be_gone(cells, Path(settings.results))
        for text in filter(None, (told, gone)):
            print(text, file=sys.stderr)


def check_cluster():
    """Stop before the first job is sent, where Slurm would refuse it or never tell its end."""
    if not by_slurm():
        return
    wanted = {}
    for job in workflow.dag.needrun_jobs():
        if not workflow.is_local(job.rule):
            for partition in str(job.resources.get("slurm_partition", "")).split(","):
                models = wanted.setdefault(partition, set())
                models.update(filter(None, [job.resources.get("gpu_model")]))
    known(
        check_slurm,
        wanted,
        status_command=workflow.executor_settings.status_command,
        seconds_before_status=workflow.executor_settings.init_seconds_before_status_checks,
        folder=Path(workflow.workdir_init),
    )
