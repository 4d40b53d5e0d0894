"""The record of a job's result: what it was made from and how, down to the data sets' sums and the kernels that ran."""

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
    """How a job with these params makes its file from the parquet files `inputs` under `results`.

    `description` is the model's JSON file. `model` is the one that computes, in the number format of the params; it
    says what it runs on.
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
    """The git commit of the checkout and whether its tree was clean; nothing where there is no git.

    For rates and page alone: in earlier files it would make the same result differ from commit to commit.
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
