"""Checks across sections: do the names that studies use exist, and do they fit together and the files on disk?"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetyheads.config.experiments import check_experiment, check_task_folder
from safetyheads.config.hints import alike, path_hint
from safetyheads.config.judge_files import check_judge
from safetyheads.config.local_files import braces, looked_for, model_folder
from safetyheads.config.messages import key_path
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.heads import parse_head
from safetyheads.plans import ALLOWED, GROUPS, Plan, check_plan, parse_plan

if TYPE_CHECKING:
    from safetyheads.config.load import Declarations

_REFERENCES = ("models", "datasets", "templates", "ablations", "decodings", "judges")


class Used(NamedTuple):
    """A name in a list of a study, and where it stands."""

    where: str
    name: str


def check_studies(config: "Declarations", values: Mapping[str, Any], folder: Path) -> list[str]:
    """Problems of the studies in `values`, the raw configuration, of which `config` is the valid part."""
    studies = values.get("studies")
    problems: list[str] = list(alike(config))
    every = studies.items() if isinstance(studies, dict) else ()
    lists = {str(name): study for name, study in every if isinstance(study, dict)}
    named = {used.name for name, study in lists.items() for used in _used(name, study, "datasets")}
    problems += _attribution(config, values)
    for name, study in lists.items():
        problems += _study(config, values, folder, name, study, named)
    return list(dict.fromkeys(problems))


def check_folders(*folders: Path) -> None:
    """Raise SafetyHeadsError if Snakemake runs in, or lies in, a folder whose path has braces."""
    for folder in folders:
        for problem in braces("The folder in which Snakemake runs", str(folder)):
            raise SafetyHeadsError(problem)


def _study(
    config: "Declarations",
    values: Mapping[str, Any],
    folder: Path,
    study: str,
    lists: Mapping[str, Any],
    named: Collection[str],
) -> Iterator[str]:
    for section in _REFERENCES:
        known = _names(config, values, section)
        for where, name in _used(study, lists, section):
            if known is not None and name not in known:
                yield f"{where}: found {name!r}, which is not known; allowed: {_listed(known)}.{nearest(name, known)}"
    models = [used.name for used in _used(study, lists, "models") if used.name in config.known("models")]
    derived = {name: list(_sources(config, values, folder, name)) for name in models}
    yield from (problem for problems in derived.values() for problem in problems)
    models = [name for name in models if not derived[name]]
    sets = [used.name for used in _used(study, lists, "datasets") if used.name in config.known("datasets")]
    own, plans = list(sets), dict[str, Plan]()
    for where, name in _used(study, lists, "plans"):
        try:
            plan = parse_plan(name)
        except SafetyHeadsError as error:
            yield f"{where}: {error}"
            continue
        yield from (f"{where}: {problem}" for problem in _plan(config, values, plan, models, folder))
        plans[where] = plan
        if plan.source in config.known("datasets"):
            sets.append(str(plan.source))
        chosen_on = [plan.source] if plan.source else [one for one in own if not config.dataset(one).benign]
        if plan.method and plan.method.benign != "none":
            benign = [config.benign_of(model, named) for model in models]
            sets += [name for name in benign if name in config.known("datasets")]
            if plan.method.benign == "needed" and None in benign:
                yield f"{where}: found {name!r}, but {config.no_benign(plan.group.kind, named)}"
            if plan.method.benign == "needed" and (same := set(benign).intersection(chosen_on)):
                yield (
                    f"{where}: found {name!r}, but {plan.group.kind} tells heads by what is different on benign "
                    f"queries, and those of {min(map(str, same))!r} would be both; allowed: another data set"
                )
        if plan.contrasted:
            problems = _contrasts(config, models, chosen_on, named, folder)
            yield from (f"{where}: found {name!r}, but {problem}" for problem in problems)
    yield from check_experiment(study, str(lists.get("experiment")), plans, len(list(_used(study, lists, "models"))))
    if lists.get("experiment") == "utility":
        yield from check_task_folder(config.utility.folder, config.results, folder)
    for _, name in _used(study, lists, "judges"):
        if name in config.known("judges"):
            yield from check_judge(config, name, folder)
    if (base := _base(config)) in config.known("models"):
        models.append(str(base))
    parts = [part for name in models for part in config.sources(name)]
    for name in dict.fromkeys([*models, *parts]):
        yield from model_folder(f"models.{name}", config.model(name).path, folder)
    for name in dict.fromkeys(sets):
        path = config.dataset(name).path
        yield from braces(f"datasets.{name}.path", path)
        if path and not (folder / path).is_file():
            where = f"datasets.{name}.path: found {path!r}, where there is no file ({looked_for(folder, path)})"
            yield f"{where}; allowed: a file{path_hint(path)}"


def _sources(config: "Declarations", values: Mapping[str, Any], folder: Path, name: str) -> Iterator[str]:
    """What is wrong with the models that a derived one is made of."""
    known = _names(config, values, "models") or []
    others = [other for other in known if other != name]
    for role, source in zip(("attention_from", "rest_from"), config.sources(name)):
        where = f"models.{name}.{role}: found {source!r}"
        if source not in known:
            yield f"{where}, which is not known; allowed: {_listed(others)}.{nearest(source, others)}"
        elif source in config.known("models") and config.sources(source):
            yield f"{where}, which is derived itself; allowed: a model with path, repo or demo"
    grids = [config.grid(source, folder) for source in config.sources(name) if source in config.known("models")]
    if len(grids) == 2 and None not in grids and grids[0] != grids[1]:
        shapes = " and ".join("{} layers of {} heads".format(*grid) for grid in grids if grid)
        yield f"models.{name}: found models of {shapes}; allowed: two models of the same shape"


def _plan(
    config: "Declarations", values: Mapping[str, Any], plan: Plan, models: list[str], folder: Path
) -> Iterator[str]:
    """What is wrong with a plan of a study that uses `models`."""
    head_sets = _names(config, values, "head_sets")
    if plan.head_set is not None and head_sets is not None and plan.head_set not in head_sets:
        yield _unknown_plan(plan, plan.head_set, head_sets)
    datasets = _names(config, values, "datasets")
    if plan.source is not None and datasets is not None and plan.source not in datasets:
        yield (
            f"found {plan.name!r} with the unknown data set {plan.source!r}; "
            f"allowed: {_listed(datasets)}.{nearest(plan.source, datasets)}"
        )
    steps = config.attribution.steps
    searches = bool(plan.method and plan.method.searches)
    if searches and plan.n is not None and plan.n > steps and _valid_steps(values, steps):
        most = f"{plan.group.kind}-{steps}"
        yield f"found {plan.name!r} with attribution.steps: {steps}; allowed: at most {most}, or more steps"
    heads = tuple(map(parse_head, config.head_sets.get(plan.head_set or "", [])))
    for name in models:
        if (grid := config.grid(name, folder)) is None:
            continue
        try:
            check_plan(plan, heads, grid, name)
        except SafetyHeadsError as error:
            yield str(error)
            continue
        if searches and steps > (count := grid[0] * grid[1]):
            yield f"found attribution.steps: {steps}; allowed: at most {count}, the number of heads of {name!r}"


def _attribution(config: "Declarations", values: Mapping[str, Any]) -> Iterator[str]:
    """Unknown names under `attribution`."""
    for section, where, name in (
        ("datasets", "attribution.benign", config.attribution.benign),
        ("models", "attribution.contrast.base", _base(config)),
        *(("templates", "attribution.attacks", name) for pair in config.attribution.attacks.items() for name in pair),
    ):
        known = _names(config, values, section)
        if name is not None and known is not None and name not in known:
            yield f"{where}: found {name!r}, which is not known; allowed: {_listed(known)}.{nearest(name, known)}"
    for attack, clean in config.attribution.attacks.items():
        if attack == clean:
            yield f"attribution.attacks: found {attack!r} beside itself; allowed: two templates"
        elif not any({attack, clean} <= templates for templates in _templates_of_studies(values)):
            yield (
                f"attribution.attacks: found {{{attack}: {clean}}}, but no study has both templates; allowed: two "
                "that stand in the templates of one study"
            )


def _templates_of_studies(values: Mapping[str, Any]) -> Iterator[set[str]]:
    """The templates that each study names, where its list can be read."""
    studies = values.get("studies")
    for lists in studies.values() if isinstance(studies, dict) else ():
        if isinstance(lists, dict):
            yield {used.name for used in _used("", lists, "templates")}


def _base(config: "Declarations") -> str | None:
    return config.attribution.contrast.base if config.attribution.contrast else None


def _contrasts(
    config: "Declarations", models: list[str], datasets: list[str], named: Collection[str], folder: Path
) -> Iterator[str]:
    """What is wrong with contrasts of these models on the data sets that heads are chosen on.

    `named` are the data sets that all studies list.
    """
    for model, dataset in product(models, datasets):
        if dataset not in config.known("datasets"):
            continue  # told elsewhere
        try:
            other, _ = config.subtracted(model, dataset, named)
        except SafetyHeadsError as error:
            yield str(error)
            continue
        grids = [config.grid(name, folder) for name in (model, other) if name in config.known("models")]
        if len({*grids, None}) == 3:
            shapes = " and ".join("{} layers of {} heads".format(*grid) for grid in grids if grid)
            yield f"{model!r} and {other!r} have {shapes}; allowed: a base model of the same shape"


def _unknown_plan(plan: Plan, unknown: str, head_sets: list[str]) -> str:
    """The message about a plan that is, or is about, the `unknown` name of a head set."""
    number, source = re.search(r"-(\d+)", unknown), re.search(r"@.*", unknown)
    n, at = number[1] if number else "1", source[0] if source else ""
    groups = [f"ships-{n}", *(f"{method}-{n}{at}" for method in GROUPS), *head_sets]
    controls = [f"{word}-{group}" for word in ("matched", "each") for group in groups if group != groups[0]]
    near = nearest(unknown, groups if plan.inner else ["none", "single", f"random-{n}", *groups, *controls])
    sets = f"the head sets {_listed(head_sets)}" if head_sets else "names declared under head_sets (there are none)"
    about = f" with {unknown!r}" if plan.inner else ""
    return f"found {plan.name!r}{about}, which is neither a plan nor a head set; allowed: {ALLOWED} and {sets}.{near}"


def _used(study: str, lists: Mapping[str, Any], key: str) -> Iterator[Used]:
    entries = lists.get(key)
    for position, name in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(name, str):
            yield Used(key_path(("studies", study, key, position)), name)


def _names(config: "Declarations", values: Mapping[str, Any], section: str) -> list[str] | None:
    """Names that may be used, also of declarations with errors; None where the section could not be read at all."""
    declared = values.get(section, {})
    if not isinstance(declared, dict):
        return None
    return list(dict.fromkeys([*config.known(section), *map(str, declared)]))


def _listed(names: list[str]) -> str:
    return ", ".join(name if name.isprintable() else repr(name) for name in names)


def _valid_steps(values: Mapping[str, Any], steps: int) -> bool:
    """Whether `steps` is what the configuration says, not a default in place of something unreadable."""
    attribution = values.get("attribution", {})
    return isinstance(attribution, dict) and attribution.get("steps", steps) == steps
