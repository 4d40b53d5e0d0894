"""Checks of studies that are experiments: would their table and figure show anything?"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetyheads.config.local_files import looked_for
from safetyheads.experiments import EXPERIMENTS
from safetyheads.methods import METHODS
from safetyheads.plans import GROUPS, Plan

_METHODS = ", ".join(f"{method}-N" for method in METHODS)
_BY_HEADS = ("doses", "transfer", "checkpoints")
"""The kinds that show heads which a method chooses."""


def check_experiment(study: str, kind: str, plans: Mapping[str, Plan], models: int) -> Iterator[str]:
    """The problems of the study of this name as an experiment of this kind, or as none.

    `plans` has its valid plans by where they stand, `models` is how many it lists.
    """
    if kind not in EXPERIMENTS:
        return
    for where, plan in plans.items():
        found = f"{where}: found {plan.name!r} in an experiment of"
        if kind == "utility" and not plan.one_set:
            groups = ", ".join(f"{group}-N" for group in GROUPS)
            yield f"{found} utility, whose tasks have items of their own; allowed: none, {groups}, names in head_sets"
        if EXPERIMENTS[kind].reads == ("scores",) and not plan.method:
            yield f"{found} scores; allowed: {_METHODS}"
    where, named = f"studies.{study}", list(plans.values())
    if kind in _BY_HEADS and named and not any(plan.method and not plan.paired for plan in named):
        yield f"{where}.plans: found no heads that a method chooses, which {kind} is about; allowed: one of {_METHODS}"
    if kind == "maps" and named and not any(plan.kind in ("single", "each") for plan in named):
        yield f"{where}.plans: found no map of single heads; allowed: single, or each-P for a plan P"
    if kind == "checkpoints" and models < 2:
        yield f"{where}.models: found one model in an experiment of checkpoints; allowed: two or more"


def check_task_folder(path: str | None, results: str, folder: Path) -> Iterator[str]:
    """The problem of `utility.folder`, in which all files count: they are read whenever a run is planned."""
    if path is None:
        return
    place = (folder / Path(path).expanduser()).resolve()
    if not place.is_dir():
        yield f"utility.folder: found {path!r}, which is no folder ({looked_for(folder, path)}); allowed: a folder"
    elif (folder / results).resolve().is_relative_to(place):
        yield f"utility.folder: found {path!r}, which holds the results; allowed: a folder of tasks and data alone"
