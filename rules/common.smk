"""What the rules share: constraints of wildcards, and short functions for inputs, params and resources.

The functions take wildcards as Snakemake hands them over, and ask `safetyheads.jobs`, which knows the answers.
"""

import sys

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import CHECKED, SHARD, Cells
from safetyheads.jobs.fingerprint import fingerprint
from safetyheads.jobs.planning import hours, rates_to_be_gone
from safetyheads.jobs.resources import Requests, gpu_here, on_gpu
from safetyheads.jobs.slurm_checks import check_jobs
from safetyheads.jobs.sources import DOWNLOAD, PATHS, WEIGHTS

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


def asked(ask, *keys):
    """A function of wildcards for inputs and `params`: what a function of the library says of these wildcards.

    `asked(cells.model_source, "model")` gives the source of the model that the wildcard `model` names.
    """
    return lambda wildcards: known(ask, *(wildcards[key] for key in keys))


def asked_paths(ask, *keys):
    """The same for a function that names paths whose keys are still in braces. They are filled in."""
    inputs = asked(ask, *keys)
    return lambda wildcards: {
        name: path.format(**wildcards) for name, path in inputs(wildcards).items()
    }


dataset_source = asked(cells.dataset_source, "dataset")
dataset_content = asked(cells.dataset_content, "dataset")
model_source = asked(cells.model_source, "model")
model_content = asked(cells.model_content, "model")
chat_template = asked(lambda model: settings.chat_template(model) or "", "model")
thinking = asked(settings.thinking, "model")
heads_of_plan = asked(cells.plan_settings, "plan", "ablation")
scores_inputs = asked_paths(cells.scores_inputs, "method", "model")
ablated = ("plan", "ablation", "model", "dataset")
completion_inputs = asked_paths(cells.completion_inputs, *ablated)
utility_inputs = asked_paths(cells.utility_inputs, *ablated)
verdict_inputs = asked_paths(cells.verdict_inputs, "model", "judge")


def dtype(wildcards):
    return known(requests.dtype, wildcards.model, on_gpu=jobs_on_gpu())


def checks_of(wildcards):
    return known(requests.checks, wildcards.model, on_gpu=jobs_on_gpu())


def shard_paths(wildcards):
    return known(requests.shard_paths, wildcards)


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
    if by_slurm():
        jobs = [
            job.resources
            for job in workflow.dag.needrun_jobs()
            if not workflow.is_local(job.rule)
        ]
        known(check_jobs, jobs, workflow.executor_settings, Path(workflow.workdir_init))
