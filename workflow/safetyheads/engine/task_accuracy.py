"""Accuracy on multiple-choice tasks with heads ablated, by lm-evaluation-harness on the model in memory (figure 6b).

The harness sees an ordinary model of transformers: the ablation holds within the block around it, so no weights are
changed, and any of its tasks will do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from safetyheads.engine.ablated import ablated
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, HeadSet
from safetyheads.tasks import METRICS, NO_METRIC, check_tasks, known_tasks

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLUMNS = ["task", "metric", "item", "value"]


def task_accuracy(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    heads: HeadSet,
    ablation: Ablation,
    tasks: Sequence[str],
    *,
    folder: Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
) -> pd.DataFrame:
    """For each item of each task whether the model is right with `heads` ablated: a table with the columns `COLUMNS`.

    Tasks are asked without examples (zero-shot), in the harness' own form. `limit` is the number of items of each task,
    the first ones, and `batch_size` how many pairs of question and choice are computed at once. `value` is 1 or 0, or
    what the task gives of an answer that is partly right.

    Raises SafetyHeadsError as `known_tasks` and `check_tasks` do, and for a task without one of `METRICS`.
    """
    check_tasks(tasks, folder)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    asked = {
        "tasks": list(tasks),
        "task_manager": known_tasks(folder),
        "num_fewshot": 0,
        "limit": limit,
        "bootstrap_iters": 0,
    }
    if heads:
        with ablated(model, heads, ablation.kind.value, ablation.epsilon):
            found = simple_evaluate(harness, **asked, log_samples=True)
    else:
        found = simple_evaluate(harness, **asked, log_samples=True)
    rows = [
        {"task": task, "metric": metric, "item": int(sample["doc_id"]), "value": float(sample[metric])}
        for task, samples in found["samples"].items()
        for sample in samples
        for metric in METRICS
        if metric in sample and sample["filter"] == samples[0]["filter"]  # further ones tell the same items once more
    ]
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values(COLUMNS[:3], ignore_index=True)
    if without := sorted(set(found["samples"]) - set(table["task"])):
        raise SafetyHeadsError(f"utility.tasks: {NO_METRIC.format(without[0])}")
    return table
