"""The multiple-choice tasks on which accuracy is measured: those of lm-evaluation-harness, and those of a folder.

The harness is an extra, `utility`, which is imported only when a task is asked for.
"""

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetyheads.errors import SafetyHeadsError, nearest

METRICS = ("acc", "acc_norm")
"""The metrics that are kept: whether the likeliest choice is right, and whether the likeliest per character is."""
NO_METRIC = f"the task {{!r}} has no metric {' or '.join(METRICS)}: only multiple-choice tasks can be measured."


@cache
def known_tasks(folder: Path | None = None) -> Any:
    """The tasks of the harness, with those of `folder`, each a YAML file of the harness, as its `TaskManager`.

    Raises SafetyHeadsError if the harness is not installed. Its thousands of files are read once.
    """
    if find_spec("lm_eval") is None:
        raise SafetyHeadsError(
            "Task accuracy is measured with lm-evaluation-harness, which is not installed where the job runs. Install "
            "it with `pip install -e '.[utility]' -c envs/constraints.txt`."
        )
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder) if folder else None)


def check_tasks(tasks: Sequence[str], folder: Path | None = None) -> None:
    """Raise SafetyHeadsError for a task that is not among `known_tasks`."""
    known = known_tasks(folder).all_tasks
    if unknown := [task for task in tasks if task not in known]:
        raise SafetyHeadsError(
            f"utility.tasks: lm-evaluation-harness has no task {unknown[0]!r}.{nearest(unknown[0], known)} "
            "`lm-eval ls tasks` lists all; your own lie in the folder `utility: {folder: FOLDER}`."
        )


def fetch_tasks(tasks: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """Download the data of tasks into the cache of Hugging Face; returns the version of the harness, and of each task
    its own `version` (None where its file has none), the number of `items` and the `sha256` of these.

    A task of a group, such as one subject of MMLU, has an entry of its own. Raises SafetyHeadsError as `known_tasks`
    and `check_tasks` do, and for data that cannot be fetched or read.
    """
    check_tasks(tasks, folder)
    import lm_eval

    try:
        found = known_tasks(folder).load(list(tasks))["tasks"]
    except Exception as error:  # of many kinds: a task's file may say anything, and its data be of any format
        said = (str(error).splitlines() or [""])[0].strip()
        raise SafetyHeadsError(
            f"utility.tasks: the data of {', '.join(tasks)} cannot be fetched or read ({type(error).__name__}: {said})."
        ) from None
    for name, task in found.items():
        metrics = [one.get("metric") for one in task.config.metric_list or []]
        if task.config.output_type != "multiple_choice" or not set(METRICS).intersection(metrics):
            raise SafetyHeadsError(f"utility.tasks: {NO_METRIC.format(name)}")
    of_tasks = {
        name: {
            "version": (task.config.metadata or {}).get("version"),
            "items": len(task.eval_docs),
            "sha256": sha256(json.dumps(list(task.eval_docs), default=str).encode()).hexdigest(),
        }
        for name, task in sorted(found.items())
    }
    return {"lm_eval": lm_eval.__version__, "tasks": of_tasks}
