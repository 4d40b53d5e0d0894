"""What the jobs of all methods of attribution have in common: they read, load the model, keep parts, and write."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from transformers import PreTrainedModel

from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import Config
from safetyheads.engine.out_of_memory import smallest_piece
from safetyheads.heads import Ablation
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.records import determining, record_of
from safetyheads.jobs.run import logged


class Job(NamedTuple):
    """What a method is given. `prompts` and `benign` have query_id, text and token_ids; `benign` may be None."""

    model: PreTrainedModel
    prompts: pd.DataFrame
    benign: pd.DataFrame | None
    ablation: Ablation | None
    settings: Mapping[str, Any]
    """The method's own."""
    openings: Sequence[str]
    """How refusals begin; empty for a method that does not go by that."""
    token_budget: int
    parts: Parts
    sources: Mapping[str, Path]
    """The files of `model`, `prompts` and `benign`, and of the `queries` where a rule has them."""
    name: str
    """Of the model."""
    config: Config


def run(snakemake: Any, method: str, compute: Callable[[Job], tuple[pd.DataFrame, Mapping[str, Any]]]) -> None:
    """Write the scores that `compute` returns, with what it has to say for their record, as the output of a job."""
    with logged(snakemake.log[0]):
        output, config, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
        name, given = snakemake.wildcards.model, snakemake.input
        sources = {key: Path(given[key]) for key in ("model", "prompts", "benign", "queries") if given.get(key)}
        columns, budget = ["query_id", "text", "token_ids"], config.compute.token_budget
        prompts = files.read(sources["prompts"], columns)
        benign = files.read(sources["benign"], columns) if "benign" in sources else None
        how = {"dtype": params.dtype, **params.model, "checks": given.checks}
        model = model_of(config, name, sources["model"], **how)
        inputs = dict.fromkeys(path for key, path in sources.items() if key != "model")
        record = record_of(params, config.results, inputs=inputs, description=sources["model"], model=model)
        parts = Parts(output, determining(record, config, name), prompts, benign, budget)
        own = dict(params.get("attribution", {}))
        openings, ablation = own.pop("openings", ()), Ablation.of(params.get("ablation", {}))
        job = Job(model, prompts, benign, ablation, own, openings, budget, parts, sources, name, config)
        rows, found = compute(job)
        record |= {**found, "out_of_memory": smallest_piece(parts)}
        stage = method if method in STAGES else "scores"
        files.write(stage, output, rows, {"method": method, **snakemake.wildcards}, record)
        parts.remove()
