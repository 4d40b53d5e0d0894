"""Everything that the rules call: which files the studies need, the settings and the code that determine a job."""

import shutil
import sys
from itertools import product
from typing import NamedTuple

from safetyheads.errors import nearest
from safetyheads.fingerprint import fingerprint
from safetyheads.plans import parse_plan

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


PLAIN = "plain"  # the ablation of the plan `none`: made once, shared by every ablation
ENVIRONMENT = "../envs/safetyheads.yaml"
MODEL = "<results>/models/{model}.json"
PROMPTS = "<results>/prompts/{model}/{dataset}/{template}.parquet"
SHIPS = "<results>/ships/{model}/{dataset}/{template}/{ablation}.parquet"
SAHARA = "<results>/sahara/{model}/{dataset}/{template}/{ablation}.parquet"
COMPLETIONS = "<results>/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.parquet"
VERDICTS = "<results>/verdicts/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}/{judge}.parquet"
SHARD = COMPLETIONS.replace("{decoding}.", ".{decoding}.{shard}-of-{shards}.")

# In the folder of a local model; its other files do not matter.
MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")

# The modules, or folders of them, that determine the numbers of each rule.
# Those that read, write, report or only check are left out.
LOADING = [
    "models",
    "checkpoint",
    "weights",
    "placement",
    "decoder",
    "ablation",
    "heads",
]
PASSES = [*LOADING, "layer_shortcuts", "partial_forward", "batches"]
CODE = {
    "datasets": ["datasets", "demo_requests"],
    "datasets_download": [],
    "models": ["models", "checkpoint"],
    "models_train": ["ablation", "demo", "demo_requests"],
    "prompts": ["prompts"],
    "ships": [*PASSES, "sweep", "ships"],
    "sahara": [*PASSES, "sweep", "sahara"],
    "completions": [
        *PASSES,
        "cache",
        "prefill",
        "plans",
        "generation",
        "completions",
    ],
    "completions_merged": [],
    "verdicts": ["judges"],
    "rates": ["statistics"],
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
    """The files of a local model, or the demo's folder; nothing for one of the hub, whose revision says it all."""
    model = known(settings.model, wildcards.model)
    if model.demo:
        return f"<results>/models/{wildcards.model}"
    files = Path(model.path).glob("*") if model.path else []
    return sorted(str(file) for file in files if file.suffix in MODEL_FILES)


def model_params(wildcards):
    return without(
        known(settings.model, wildcards.model),
        ("path", "dtype", "chat_template", "gpus", "max_memory"),
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


def chat_template(wildcards):
    return known(settings.model, wildcards.model).chat_template or ""


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


def shard_paths(wildcards):
    """The parts of a cell's completions."""
    count = settings.compute.shards
    return [
        SHARD.format(**wildcards, shard=shard, shards=count) for shard in range(count)
    ]


def code(rule):
    """The fingerprint of a rule's script and of the modules that determine its numbers."""
    library = ROOT / "workflow" / "safetyheads"
    modules = [
        library / name if (library / name).is_dir() else library / f"{name}.py"
        for name in CODE[rule]
    ]
    return fingerprint([ROOT / "workflow" / "scripts" / f"{rule}.py", *modules])


def gpus(wildcards):
    """GPUs that a job asks for: its model's, where there are any and the configuration does not rule them out."""
    wanted = settings.compute.device
    there = wanted.startswith("cuda") or (
        wanted == "auto" and shutil.which("nvidia-smi") is not None
    )
    return known(settings.model, wildcards.model).gpus if there else 0
