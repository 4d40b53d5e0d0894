"""Score every head for every prompt: how far its ablation moves the next token (Ships), and which way."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_shift import first_tokens
from safetyheads.attribution.ships import ships
from safetyheads.config.load import Config
from safetyheads.engine.out_of_memory import smallest_piece
from safetyheads.heads import Ablation
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.records import determining, record_of
from safetyheads.jobs.run import logged
from safetyheads.templates import opening_tokens

with logged(snakemake.log[0]):
    output, settings, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
    name, description, source = snakemake.wildcards.model, Path(snakemake.input.model), Path(snakemake.input.prompts)
    prompts = files.read(source, ["query_id", "text", "token_ids"])
    benign_source = snakemake.input.get("benign")
    benign = files.read(Path(benign_source), ["token_ids"]) if benign_source else None
    openings = opening_tokens(prompts["text"], params.openings, tokenizer_of(settings, name, description))
    how = {"dtype": params.dtype, **params.model, "checks": snakemake.input.checks}
    model = model_of(settings, name, description, **how)
    inputs = dict.fromkeys([source, *([Path(benign_source)] if benign_source else [])])
    record = record_of(params, settings.results, inputs=inputs, description=description, model=model)
    budget = settings.compute.token_budget
    parts = Parts(output, determining(record, settings, name), prompts, benign, budget)
    first = first_tokens(model, prompts, benign, openings, token_budget=budget, parts=parts)
    record["refusal"] = {**first.record(), "benign": Path(benign_source).parent.name if benign_source else None}
    if benign_source == str(source):  # nothing to be told apart from them
        record["refusal"] |= {"p_benign": None, "auroc": None}
    scores = ships(model, prompts, Ablation.of(params.ablation), first=first, token_budget=budget, parts=parts)
    record["out_of_memory"] = smallest_piece(parts)
    files.write("ships", output, scores, dict(snakemake.wildcards), record)
    parts.remove()
