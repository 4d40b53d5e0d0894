"""Make the record of a job's result: from which files it was made, by which settings and code, on which device."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.artifacts.provenance import made_from, record
from safetyheads.config.load import Config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUMS = ("content", "verdicts")
"""The params of rules that are sums of the user's own files, by which Snakemake sees that these have changed."""


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

    Params that are sums of files as the run was planned (`SUMS`) are left out: jobs record the sums of what they read.
    """
    params = {key: value for key, value in params.items() if key not in SUMS}
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


def determining(record: Mapping[str, Any], settings: Config, model: str) -> dict[str, Any]:
    """What of a record, and of settings that are in no record, decides the numbers of a job's batches.

    Prompts and the heads of a plan are not among it: a job adds them themselves.
    """
    kept = ("code", "config", "model", "dtype", "attention", "kernels", "device")
    libraries = {library: record["versions"].get(library) for library in ("numpy", "torch", "transformers")}
    own = settings.model(model)
    places = {"threads": settings.compute.threads, "gpus": own.gpus, "max_memory": own.max_memory}
    return {key: record.get(key) for key in kept} | libraries | places


def commit(checkout: Path) -> dict[str, Any]:
    """The git commit of the checkout, and whether what the results follow from was as committed; else nothing.

    Rates, effects, the study's small tables and the page alone name it. In earlier files it would make the same result
    differ from commit to commit.
    """
    asked = {
        "top": ("rev-parse", "--show-toplevel"),
        "commit": ("rev-parse", "HEAD"),
        "changes": ("status", "--porcelain", "--", "Snakefile", "rules", "workflow", "config/catalogue"),
    }
    said: dict[str, str] = {}
    for name, words in asked.items():
        try:
            done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        if done.returncode:
            return {}
        said[name] = done.stdout.strip()
    if Path(said["top"]).resolve() != checkout.resolve():  # a copy within another project's repository
        return {}
    return {"commit": said["commit"], "clean": not said["changes"]}
