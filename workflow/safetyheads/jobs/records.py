"""Make the record of a job's result: from which files it was made, by which settings and code, on which device."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.artifacts.provenance import made_from, record

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def record_of(
    params: Mapping[str, Any],
    results: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    description: str | Path | None = None,
    model: "PreTrainedModel | None" = None,
) -> dict[str, Any]:
    """The record of the file that a job with these params makes from the parquet files `inputs` under `results`.

    `description` is the JSON file of the model that the job is about, if any. `model` is given by jobs that compute
    with it: the record then also names the dtype of the params, and the attention, kernels and device that the model
    uses. The records of the inputs are in `made_from`, by their paths under `results`.
    """
    computed = {} if model is None else {"dtype": params["dtype"], **_computed_with(model)}
    own = record(params, None if description is None else Path(description), **computed)
    return own | {"made_from": made_from(map(Path, inputs), Path(results))}


def _computed_with(model: "PreTrainedModel") -> dict[str, Any]:
    import torch

    from safetyheads.engine.decoder import input_device
    from safetyheads.engine.kernels import kernels

    device = input_device(model)
    return {
        "attention": model.config.get_text_config(decoder=True)._attn_implementation,
        "kernels": kernels(model),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def commit(checkout: Path) -> dict[str, Any]:
    """`commit` and `clean`, the git commit of the checkout and whether it had no changes; empty where there is no git.

    Only rates and the page record it. In the files of earlier stages it would make equal results differ from commit to
    commit.
    """
    git = ["git", "-C", str(checkout)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if head.returncode or status.returncode:
        return {}
    return {"commit": head.stdout.strip(), "clean": not status.stdout.strip()}
