"""Load the judge of a job, from the files that were described, on a free GPU, in the number format that was planned."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs import gpu_lease
from safetyheads.jobs.judge_files import judge_folders
from safetyheads.judges.classifier import Classifier
from safetyheads.judges.generative import Generative
from safetyheads.judges.judge_prompts import Clip, JudgePrompts
from safetyheads.models.adapter import merge_adapter
from safetyheads.models.classifier import load_classifier, window_of
from safetyheads.models.open import open_model
from safetyheads.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def judge_of(
    settings: Config, name: str, description: Path, *, dtype: str
) -> "tuple[Generative | Classifier, PreTrainedModel]":
    """The judge `name`, and its model. `description` is `judges/{name}.json`, `dtype` that of the job's params.

    Waits for a free GPU where jobs run on GPUs. Raises SafetyHeadsError if a file of the judge is not the one that was
    described, and for all that loading and the judge itself refuse.
    """
    judge, described = settings.judge(name), files.read_json(description)
    folder, adapter = judge_folders(judge, described, description.stat().st_mtime)
    model = described["model"]
    device = gpu_lease.take(settings.compute.device, judge.gpus)
    if judge.kind == "classifier":
        window = window_of(folder, judge.window, model["longest"])
        tokenizer = load_tokenizer(folder, "auto")
        prompts = JudgePrompts(tokenizer, described["template"], query=False)
        loaded = load_classifier(
            folder, dtype=dtype, device=device, attention=judge.attention, threads=settings.compute.threads
        )
        _collect_garbage_again()
        more = {} if judge.threshold is None else {"threshold": judge.threshold}
        return Classifier(
            loaded, prompts, judge.classes or [], detects=judge.detects or "refusal", window=window, **more
        ), loaded
    opened = open_model(
        folder,
        dtype=dtype,
        attention=judge.attention,
        device=device,
        threads=settings.compute.threads,
        gpus=judge.gpus,
        max_memory=judge.max_memory,
    )
    if adapter is not None:
        opened = merge_adapter(opened, adapter)
    tokenizer = load_tokenizer(folder, model["tokenizer"])
    clip, lead = Clip(**judge.clip.model_dump()) if judge.clip else None, judge.lead or ("",)
    prompts = JudgePrompts(tokenizer, described["template"], clip, leads=lead)
    made = Generative(
        opened,
        prompts,
        judge.answers or {},
        detects=judge.detects or "harm",
        threshold=judge.threshold,
        lead=lead,
        context_length=model["context_length"],
    )
    _collect_garbage_again()
    return made, opened


def _collect_garbage_again() -> None:
    """What `startup` switched off; what is there by now is not searched."""
    gc.freeze()
    gc.enable()
