"""Everything that the rules call: which files the studies need, the settings and the code that determine a job."""

import re
import shutil
import sys
from functools import cache
from itertools import product
from typing import NamedTuple

from safetyheads.jobs.slurm_checks import check_slurm
from safetyheads.errors import nearest
from safetyheads.costs.job_costs import Estimates
from safetyheads.jobs.fingerprint import fingerprint
from safetyheads.costs.cost_table import announcement, planned
from safetyheads.plans import PLAIN, parse_plan

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
MODEL = "<results>/models/{model}.json"
PROMPTS = "<results>/prompts/{model}/{dataset}/{template}.parquet"
SHIPS = "<results>/ships/{model}/{dataset}/{template}/{ablation}.parquet"
SAHARA = "<results>/sahara/{model}/{dataset}/{template}/{ablation}.parquet"
COMPLETIONS = "<results>/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.parquet"
VERDICTS = "<results>/verdicts/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}/{judge}.parquet"
SHARD = COMPLETIONS.replace("{decoding}.", ".{decoding}.{shard}-of-{shards}.")

estimates = Estimates(settings)

# In the folder of a local model; its other files do not matter.
MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")

# The modules, or folders of them, that determine the numbers of each rule.
# Those that read, write, report or only check are left out.
LOADING = [
    "models/load",
    "models/derived",
    "models/files",
    "models/weights",
    "models/device_map",
    "models/attention",
    "engine/decoder",
    "engine/ablation",
    "heads",
]
PASSES = [*LOADING, "engine/layer_shortcuts", "engine/partial_forward", "engine/batches"]
CODE = {
    "datasets": ["datasets", "demo/requests"],
    "datasets_download": [],
    "models": ["models/load", "models/files", "models/derived"],
    "models_train": ["engine/ablation", "demo/model", "demo/requests"],
    "prompts": ["prompts"],
    "ships": [*PASSES, "attribution/scoring_passes", "attribution/ships"],
    "sahara": [*PASSES, "attribution/scoring_passes", "attribution/sahara"],
    "completions": [
        *PASSES,
        "engine/kv_cache",
        "engine/prefill",
        "engine/shared_rows",
        "plans",
        "engine/generation",
        "engine/completions",
    ],
    "completions_merged": [],
    "verdicts": ["judges"],
    "rates": ["statistics/rates"],
    "report": ["report"],
}


class Cell(NamedTuple):
    """One cell of a study, by the keys of its verdicts' path."""

    model: str
    dataset: str
    template: str
    ablation: str
    plan: str
    decoding: str
    judge: str


def known(lookup, name):
    """What `name` stands for in the configuration; an unknown one is the user's error."""
    try:
        return lookup(name)
    except SafetyHeadsError as error:
        sys.exit(str(error))


@cache
def cells():
    """All cells of all studies, with the plain model's, in a fixed order."""
    found = set()
    for study in settings.studies.values():
        for ablation, plan in product(study.ablations, ["none", *study.plans]):
            own = PLAIN if plan == "none" else ablation
            found.update(
                Cell(model, dataset, template, own, plan, decoding, judge)
                for model, dataset, template, decoding, judge in product(
                    study.models,
                    study.datasets,
                    study.templates,
                    study.decodings,
                    study.judges,
                )
            )
    return sorted(found)


def paths(pattern, keyed):
    """The pattern's paths for these cells, without repetitions."""
    return sorted({pattern.format(**cell._asdict()) for cell in keyed})


def ships_of_studies():
    """The Ships scores that some plan needs."""
    return paths(
        SHIPS, [cell for cell in cells() if parse_plan(cell.plan).kind == "ships"]
    )


def sahara_of_studies():
    """The Sahara scores that some plan needs."""
    return paths(
        SAHARA,
        [
            attributed(cell)
            for cell in cells()
            if parse_plan(cell.plan).kind == "sahara"
        ],
    )


def attributed(cell):
    """The cell with the data set from which its plan takes the attribution."""
    return cell._replace(dataset=parse_plan(cell.plan).source or cell.dataset)


def models_of_studies():
    return paths(MODEL, cells())


def datasets_of_studies():
    return paths(
        "<results>/datasets/{dataset}.parquet", [*cells(), *map(attributed, cells())]
    )


def dataset_source(wildcards):
    """The file of a data set: the user's own, or the download; none for the demo's."""
    dataset = known(settings.dataset, wildcards.dataset)
    if dataset.demo:
        return []
    return dataset.path or f"<results>/datasets/.{wildcards.dataset}.download"


def dataset_params(wildcards):
    """How the file is read; where it lies does not matter."""
    places = ("path", "url", "repo", "revision", "file")
    return without(known(settings.dataset, wildcards.dataset), places)


def download_params(wildcards):
    """Where the file is and what it must be."""
    return without(
        known(settings.dataset, wildcards.dataset),
        ("path", "demo", "query", "category", "target"),
    )


def model_source(wildcards):
    """The files of a local model, or the demo's folder; nothing for one of the hub, whose revision says it all.

    For a derived model, the descriptions of both that it is made of.
    """
    model = known(settings.model, wildcards.model)
    if sources := settings.sources(wildcards.model):
        return [MODEL.format(model=source) for source in sources]
    if model.demo:
        return f"<results>/models/{wildcards.model}"
    files = Path(model.path).glob("*") if model.path else []
    return sorted(str(file) for file in files if file.suffix in MODEL_FILES)


def model_params(wildcards):
    return without(
        known(settings.model, wildcards.model),
        ("path", "dtype", "attention", "chat_template", "gpus", "max_memory"),
    )


def demo_params(wildcards):
    demo = known(settings.model, wildcards.model).demo
    if demo is None:
        sys.exit(
            f"Model {wildcards.model!r} is not a demo model: it is not trained here."
        )
    return demo.plain()


def without(section, left_out):
    """The section as plain sorted values, less some keys."""
    return {key: value for key, value in section.plain().items() if key not in left_out}


def dtype(wildcards):
    return known(settings.model, wildcards.model).dtype


def attention(wildcards):
    return known(settings.model, wildcards.model).attention


def chat_template(wildcards):
    return known(settings.chat_template, wildcards.model) or ""


def template_params(wildcards):
    return known(settings.template, wildcards.template).plain()


def ablation_params(wildcards):
    return (
        {}
        if wildcards.ablation == PLAIN
        else known(settings.ablation, wildcards.ablation).plain()
    )


def attribution_params():
    return settings.attribution.plain()


def decoding_params(wildcards):
    return known(settings.decoding, wildcards.decoding).plain()


def judge_params(wildcards):
    return known(settings.judge, wildcards.judge).plain()


def plan_of(wildcards):
    plan = known(parse_plan, wildcards.plan)
    if (plan.kind == "none") != (wildcards.ablation == PLAIN):
        sys.exit(
            f"Plan {plan.name!r} under {wildcards.ablation!r}: the plain model is `plain/none`."
        )
    return plan


def plan_heads(wildcards):
    """The heads of a named set, for a plan that is one."""
    plan = plan_of(wildcards)
    if plan.kind != "head_set":
        return []
    if plan.name not in settings.head_sets:
        known_sets = settings.head_sets
        sys.exit(
            f"{plan.name!r} is neither a plan nor in head_sets.{nearest(plan.name, known_sets)}"
        )
    return list(settings.head_sets[plan.name])


def plan_random(wildcards):
    """How random heads are drawn, for a plan that draws them."""
    return settings.random.plain() if plan_of(wildcards).kind == "random" else {}


def completion_inputs(wildcards):
    """Prompts and model, and the scores that the plan takes its heads from."""
    plan = plan_of(wildcards)
    inputs = {"model": MODEL, "prompts": PROMPTS}
    if plan.kind == "ships":
        inputs["ships"] = SHIPS
    if plan.kind == "sahara":
        inputs["sahara"] = SAHARA.replace("{dataset}", plan.source or "{dataset}")
    return {name: pattern.format(**wildcards) for name, pattern in inputs.items()}


def shards(keyed):
    """The number of jobs that share a cell's completions."""
    key = (keyed.model, keyed.dataset, keyed.template, keyed.plan, keyed.decoding)
    return known(lambda of: estimates.shards(*of), key)


def shard_paths(wildcards):
    """The parts of a cell's completions."""
    count = shards(wildcards)
    return [
        SHARD.format(**wildcards, shard=shard, shards=count) for shard in range(count)
    ]


def models_of_several_shards():
    """A constraint on the model that looks ahead: what follows must be a cell whose completions several jobs share.

    With a count in the configuration these are all cells, also those that no study has.
    """
    if settings.compute.shards != "auto":
        return NAME
    found = {"/".join(cell[:6]) for cell in cells() if shards(cell) > 1}
    return rf"(?=(?:{'|'.join(map(re.escape, sorted(found)))})\.parquet$){NAME}"


def announce():
    """Tell on the terminal, once and not in every job, how many hours the studies take; nothing where it is minutes."""
    if not workflow.is_main_process:
        return
    keyed, found = cells(), Estimates(settings, gpu=on_gpu())
    ships = {cell[:4] for cell in keyed if parse_plan(cell.plan).kind == "ships"}
    sahara = {
        attributed(cell)[:4] for cell in keyed if parse_plan(cell.plan).kind == "sahara"
    }
    completions = {cell[:6] for cell in keyed}
    told = announcement(
        found,
        planned(
            found,
            [key[:3] for key in sorted(ships)],
            [key[:3] for key in sorted(sahara)],
            [(*key[:3], *key[4:]) for key in sorted(completions)],
        ),
    )
    if told:
        print(told, file=sys.stderr)


def code(rule):
    """The fingerprint of a rule's script and of the modules that determine its numbers."""
    library = ROOT / "workflow" / "safetyheads"
    modules = [
        library / name if (library / name).is_dir() else library / f"{name}.py"
        for name in CODE[rule]
    ]
    return fingerprint([ROOT / "workflow" / "scripts" / f"{rule}.py", *modules])


def gpus(wildcards):
    """GPUs that a job asks for: its model's, where there are any and the configuration does not rule them out.

    Tasks of a Slurm array have one request: there it is what the studies' largest model needs.
    """
    if not on_gpu():
        return 0
    own = known(settings.model, wildcards.model).gpus
    return max(own, most_gpus()) if by_slurm() else own


@cache
def most_gpus():
    return max(settings.model(cell.model).gpus for cell in cells())


def on_gpu():
    """Whether jobs run on GPUs: where there are any, on a cluster's nodes, or where the configuration says so."""
    wanted = settings.compute.device
    there = shutil.which("nvidia-smi") is not None or by_slurm()
    return wanted.startswith("cuda") or (wanted == "auto" and there)


def by_slurm():
    """Whether this process sends jobs to Slurm; known once all rules are read."""
    plugin = workflow.executor_plugin
    return plugin is not None and plugin.name == "slurm"


LEAST_MINUTES = (
    20  # of a job's time limit: a queue of slow disks may take its time to start one
)
LONGEST = "longest"  # the resource by which a profile limits the time that jobs ask for, in minutes
UNKNOWN = (32_000_000_000, 12 * 3600.0)  # memory and seconds where sizes are unknown


def estimated(stage, keyed):
    """Bytes of memory and seconds that a job takes; `keyed` has the keys of its path."""
    key = (keyed.model, keyed.dataset, keyed.template)
    if stage.startswith("completions"):
        key = (*key, keyed.plan, keyed.decoding, shards(keyed))
        job = known(lambda of: estimates.completions(*of), key)
    else:
        job = known(lambda of: getattr(estimates, stage)(*of), key)
    return UNKNOWN if job is None else (job.host_memory, job.seconds)


@cache
def largest(stage):
    """Bytes and seconds of the largest job that the studies have of a rule. Tasks of a Slurm array have one request."""
    found = [(0, 0.0)]
    for cell in cells():
        if stage.startswith("completions"):
            if (shards(cell) > 1) == (stage == "completions_part"):
                found.append(estimated(stage, cell))
        elif parse_plan(cell.plan).kind == stage:
            found.append(estimated(stage, attributed(cell)))
    return tuple(map(max, zip(*found)))


def memory(wildcards, attempt, rulename):
    """MB of the machine's memory that a job asks for: a quarter more than estimated, as much again at each attempt."""
    size = max(estimated(rulename, wildcards)[0], largest(rulename)[0])
    return round(1.25 * size / 1e6) * attempt


def runtime(wildcards, attempt, rulename):
    """Minutes that a job asks for: twice the estimate, as much again at each attempt, within the profile's limit."""
    seconds = max(estimated(rulename, wildcards)[1], largest(rulename)[1])
    wanted = max(LEAST_MINUTES, round(2 * seconds / 60)) * attempt
    limit = (workflow.resource_settings.default_resources or {}).get(LONGEST)
    return wanted if limit is None else min(wanted, limit.value)


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
        lambda partitions: check_slurm(
            partitions,
            status_command=workflow.executor_settings.status_command,
            seconds_before_status=workflow.executor_settings.init_seconds_before_status_checks,
            folder=Path(workflow.workdir_init),
        ),
        wanted,
    )
