"""Search, head by head, for the group of heads whose ablation changes the hidden states of a data set most (Sahara)."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.config.load import Config
from safetyheads.engine.out_of_memory import smallest_piece
from safetyheads.heads import Ablation
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.records import determining, record_of
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    output, settings, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
    description, source = Path(snakemake.input.model), Path(snakemake.input.prompts)
    prompts = files.read(source, ["query_id", "token_ids"])
    how = {"dtype": params.dtype, **params.model, "checks": snakemake.input.checks}
    model = model_of(settings, snakemake.wildcards.model, description, **how)
    record = record_of(params, settings.results, inputs=[source], description=description, model=model)
    budget = settings.compute.token_budget
    parts = Parts(output, determining(record, settings, snakemake.wildcards.model), prompts, budget)
    scores = sahara(
        model,
        prompts,
        Ablation.of(params.ablation),
        **params.attribution,
        token_budget=budget,
        parts=parts,
    )
    record["out_of_memory"] = smallest_piece(parts)
    files.write("sahara", output, scores, dict(snakemake.wildcards), record)
    parts.remove()
