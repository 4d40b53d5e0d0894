"""What the rules share: constraints of wildcards, and short functions for inputs, params and resources.

The functions take wildcards as Snakemake hands them over, and ask `safetyheads.jobs`, which knows the answers.
"""

import os
import sys

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import DOWNLOAD, PATHS, SHARD, WEIGHTS, Cells
from safetyheads.jobs.fingerprint import fingerprint
from safetyheads.jobs.planning import hours, rates_to_be_gone
from safetyheads.jobs.resources import Requests, gpu_here, on_gpu
from safetyheads.jobs.slurm_checks import check_slurm
from safetyheads.jobs.slurm_requests import request

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
    """Call a function of the library. A SafetyHeadsError is a mistake of the user's: the run ends with its message."""
    try:
        return ask(*arguments, **named)
    except SafetyHeadsError as error:
        sys.exit(str(error))


def given(section, *keys):
    """A function of wildcards for `params`: the settings that a job depends on, from one section of the configuration.

    `given("model", "attention")` gives the setting `attention` of the model that the wildcard `model` names. Without
    keys it gives all settings of that entry. A change of any other setting does not run the rule again.
    """
    return lambda wildcards: known(
        settings.given, f"{section}s", wildcards[section], keys
    )


def code(rule):
    """The fingerprint of a rule's script and of the modules that it imports. If they change, the rule runs again."""
    return fingerprint(ROOT / "workflow" / "scripts" / f"{rule}.py")


def dataset_source(wildcards):
    return known(cells.dataset_source, wildcards.dataset)


def dataset_content(wildcards):
    return known(cells.dataset_content, wildcards.dataset)


def model_source(wildcards):
    return known(cells.model_source, wildcards.model)


def model_content(wildcards):
    return known(cells.model_content, wildcards.model)


def chat_template(wildcards):
    return known(settings.chat_template, wildcards.model) or ""


def thinking(wildcards):
    return known(settings.thinking, wildcards.model)


def dtype(wildcards):
    return known(requests.dtype, wildcards.model, on_gpu=jobs_on_gpu())


def checks_of(wildcards):
    """The path of the checks of a model in the number format and with the attention that its jobs have."""
    attention = known(settings.model, wildcards.model).attention
    return PATHS["checks"].format(
        model=wildcards.model, dtype=dtype(wildcards), attention=attention
    )


def all_checks(wildcards):
    """The paths of the checks of all models that are measured."""
    return sorted({checks_of(cell) for cell in cells.all})


def heads_of_plan(wildcards):
    return known(cells.plan_settings, wildcards.plan, wildcards.ablation)


def completion_inputs(wildcards):
    """The paths of prompts and model, and of the scores from which the plan takes its heads."""
    inputs = known(cells.completion_inputs, wildcards.plan, wildcards.ablation)
    return {name: path.format(**wildcards) for name, path in inputs.items()}


def verdict_inputs(wildcards):
    """The paths of completions, of the plain model's, and of what tells whether a model still thinks."""
    inputs = known(cells.verdict_inputs, wildcards.model)
    return {name: path.format(**wildcards) for name, path in inputs.items()}


def measured():
    """The paths of all numbers that the page shows, but for scores."""
    stages = ("rates", "effects", "effects_by_category", "noise")
    return [PATHS[stage] for stage in stages]


def shard_paths(wildcards):
    """The paths of all shards of a cell's completions."""
    count = known(requests.shards, wildcards)
    return [SHARD.format(**wildcards, shard=at, shards=count) for at in range(count)]


def gpus(wildcards):
    return known(requests.gpus, wildcards.model, on_gpu=jobs_on_gpu())


def memory(wildcards, attempt, rulename):
    return known(requests.memory, rulename, wildcards, attempt)


def runtime(wildcards, attempt, rulename):
    """Minutes that a job may take, but no more than the resource `longest`, which a profile may set."""
    limit = (workflow.resource_settings.default_resources or {}).get("longest")
    longest = None if limit is None else limit.value
    return known(requests.runtime, rulename, wildcards, attempt, longest)


def jobs_on_gpu():
    """Whether jobs run on GPUs. On a cluster they run on other machines, where `auto` is taken to find GPUs."""
    elsewhere = workflow.remote_exec or by_slurm()
    return on_gpu(settings.compute.device, there=elsewhere or gpu_here())


def by_slurm():
    """Whether this process sends jobs to Slurm. Must not be asked before all rules are read."""
    plugin = workflow.executor_plugin
    return plugin is not None and plugin.name == "slurm"


def announce():
    """Tell on the terminal how long the run takes and which rates would be lost.

    Every job reads these rules again in a process of its own, so only the main process tells it.
    """
    if workflow.is_main_process:
        told = hours(settings, cells, on_gpu=jobs_on_gpu())
        gone = rates_to_be_gone(cells, Path(settings.results))
        for text in filter(None, (told, gone)):
            print(text, file=sys.stderr)


def check_cluster():
    """End the run before the first job is sent if Slurm would refuse a job, or if its end would go unnoticed."""
    if not by_slurm():
        return
    # The plugin may choose partitions by itself, from a file that says what each of them takes.
    own_choice = (
        workflow.executor_settings.partition_config
        or "SNAKEMAKE_SLURM_PARTITIONS" in os.environ
    )
    wanted, sent, clusters = {}, set(), set()
    for job in workflow.dag.needrun_jobs():
        if not workflow.is_local(job.rule):
            for partition in str(job.resources.get("slurm_partition", "")).split(","):
                models = wanted.setdefault(partition, set())
                models.update(filter(None, [job.resources.get("gpu_model")]))
            if job.resources.get("slurm_partition") or not own_choice:
                sent.add(known(request, job.resources))
            clusters.add(str(job.resources.get("clusters", "")))
    known(
        check_slurm,
        wanted,
        status_command=workflow.executor_settings.status_command,
        seconds_before_status=workflow.executor_settings.init_seconds_before_status_checks,
        folder=Path(workflow.workdir_init),
        requests=sorted(sent),
        cluster=max(clusters, default=""),
    )
