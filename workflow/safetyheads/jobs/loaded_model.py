"""A job's model, loaded from the files that were described, on the GPU that is free, as the job was planned."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.config.load import Config
from safetyheads.jobs import gpu_lease
from safetyheads.jobs.model_files import described_folders
from safetyheads.models.open import open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_of(settings: Config, name: str, description: Path, *, dtype: str, attention: str) -> "PreTrainedModel":
    """Open a model for scoring or generation, with the dtype and attention that its job was planned with.

    `description` is `models/{name}.json`. Raises SafetyHeadsError if it is not that of the model's files.
    """
    folders = described_folders(settings, name, description, tokenizer=False)
    model = settings.model(name)
    opened = open_model(
        folders["rest_from"],
        dtype=dtype,
        attention=attention,
        device=gpu_lease.take(settings.compute.device, model.gpus),
        threads=settings.compute.threads,
        gpus=model.gpus,
        max_memory=model.max_memory,
        attention_folder=folders.get("attention_from"),
    )
    gc.freeze()
    gc.enable()  # see `startup`
    return opened
