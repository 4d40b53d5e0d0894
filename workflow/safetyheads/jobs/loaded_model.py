"""Load the model of a job: from the files that were described, on a free GPU, in the number format that was planned."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.config.load import Config
from safetyheads.jobs import gpu_lease
from safetyheads.jobs.checked_model import check_if_elsewhere
from safetyheads.jobs.model_files import described_folders
from safetyheads.models.open import open_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def model_of(
    settings: Config, name: str, description: Path, *, dtype: str, attention: str, checks: str | None = None
) -> "PreTrainedModel":
    """Open the model `name` for scoring or generation, with the dtype and attention of the job's params.

    `description` is the file `models/{name}.json`, `checks` that of its checks, which are made up for where they were
    made on another kind of device. Waits for a free GPU where jobs run on GPUs. Raises SafetyHeadsError if a file of
    the model is not the one that was described, if a check fails, and for all that `models.load.load` refuses.
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
    if checks is not None:
        check_if_elsewhere(settings, name, description, opened, Path(checks))
    gc.freeze()
    gc.enable()  # `startup` switched it off; what is frozen is not searched again
    return opened
