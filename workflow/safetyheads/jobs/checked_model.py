"""Check the model of a job on the device that it is on, unless that has been done."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.model_files import tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from safetyheads.engine.model_checks import Result

log = logging.getLogger(__name__)


def checked(settings: Config, name: str, description: Path, model: "PreTrainedModel") -> "Sequence[Result]":
    """The results of the checks of a model. `description` is `models/{name}.json`.

    Raises SafetyHeadsError, with what to do, if one fails.
    """
    from safetyheads.engine.model_checks import check_model, ordinary_tokens, refuse_failed

    results = check_model(model, ordinary_tokens(tokenizer_of(settings, name, description)))
    refuse_failed(results, model, name)
    return results


def check_if_elsewhere(settings: Config, name: str, description: Path, model: "PreTrainedModel", checks: Path) -> None:
    """Check a model whose file `checks`, that of the rule of this name, tells of another kind of device: GPU or CPU.

    The kind of device is none of the rule's params, because results of GPUs may be put together where there is none.
    """
    from safetyheads.engine.decoder import input_device

    before, here = files.read_json(checks)["record"]["device"], input_device(model).type
    if (before == "cpu") != (here == "cpu"):
        log.info("The model was checked on %s; it is checked again on %s.", before, here)
        checked(settings, name, description, model)
