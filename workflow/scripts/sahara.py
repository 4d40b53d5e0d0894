"""Search the group of heads whose ablation turns a data set's states most."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.config.load import Config
from safetyheads.heads import Ablation
from safetyheads.jobs.run import logged, open_model, provenance

with logged(snakemake.log[0]):
    output, settings = Path(snakemake.output[0]), Config.model_validate(snakemake.config)
    prompts = files.read(Path(snakemake.input.prompts), ["query_id", "token_ids"])
    model = open_model(settings, snakemake.wildcards.model, Path(snakemake.input.model))
    record = provenance(snakemake.params, Path(snakemake.input.model), model, Path(snakemake.input.prompts))
    budget = settings.compute.token_budget
    parts = Parts(output, record, prompts, budget)
    scores = sahara(
        model,
        prompts,
        Ablation.of(snakemake.params.ablation),
        **snakemake.params.attribution,
        token_budget=budget,
        parts=parts,
    )
    files.write("sahara", output, scores, dict(snakemake.wildcards), record)
    parts.remove()
