"""Answer the prompts of a data set with the heads of a plan ablated."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.config.load import Config
from safetyheads.engine.completions import complete
from safetyheads.heads import Ablation, parse_head
from safetyheads.jobs.run import logged, open_model, open_tokenizer, provenance
from safetyheads.plans import Decoding, assign, check_plan, parse_plan

with logged(snakemake.log[0]):
    output, settings, name = (
        Path(snakemake.output[0]),
        Config.model_validate(snakemake.config),
        snakemake.wildcards.model,
    )
    description = files.read_json(snakemake.input.model)
    prompts = files.read(Path(snakemake.input.prompts), ["query_id", "token_ids"])
    scores = {key: files.read(Path(path)) for key, path in snakemake.input.items() if key in ("ships", "sahara")}
    grid = (description["layers"], description["heads"])
    plan, heads = parse_plan(snakemake.wildcards.plan), tuple(map(parse_head, snakemake.params.heads))
    check_plan(plan, heads, grid, name)
    assignments = assign(plan, list(prompts["query_id"]), grid, **scores, heads=heads, **snakemake.params.random)
    model = open_model(settings, name, Path(snakemake.input.model))
    record = provenance(snakemake.params, Path(snakemake.input.model), model, Path(snakemake.input.prompts))
    budget = settings.compute.token_budget
    parts = Parts(output, record, prompts, budget, assignments)
    rows = complete(
        model,
        open_tokenizer(settings, name, Path(snakemake.input.model)),
        prompts,
        assignments,
        Ablation.of(snakemake.params.ablation),
        Decoding(**snakemake.params.decoding),
        context_length=description["context_length"],
        eos_token_ids=description["eos_token_ids"],
        token_budget=budget,
        parts=parts,
        shard=int(getattr(snakemake.wildcards, "shard", 0)),
        shards=int(getattr(snakemake.wildcards, "shards", 1)),
    )
    files.write("completions", output, rows, dict(snakemake.wildcards), record)
    parts.remove()
