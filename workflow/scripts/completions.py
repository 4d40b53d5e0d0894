"""Complete the prompts of a data set, with the heads of a plan ablated in each completion."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.chosen_heads import assign
from safetyheads.config.load import Config
from safetyheads.engine.completions import complete
from safetyheads.engine.out_of_memory import smallest_piece
from safetyheads.heads import Ablation, parse_head
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.records import determining, record_of
from safetyheads.jobs.run import logged
from safetyheads.plans import Decoding, check_plan, parse_plan

with logged(snakemake.log[0]):
    output, settings, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
    name, description, source = snakemake.wildcards.model, Path(snakemake.input.model), Path(snakemake.input.prompts)
    shard, shards = (int(getattr(snakemake.wildcards, key, default)) for key, default in (("shard", 0), ("shards", 1)))
    described = files.read_json(description)
    prompts = files.read(source, ["query_id", "token_ids"])
    scored = {key: Path(path) for key, path in snakemake.input.items() if key in ("scores", "less")}
    scores = {key: files.read(path) for key, path in scored.items()}
    grid = (described["layers"], described["heads"])
    plan, heads = parse_plan(snakemake.wildcards.plan), tuple(map(parse_head, params.plan.get("heads", ())))
    check_plan(plan, heads, grid, name)
    assignments = assign(plan, list(prompts["query_id"]), grid, **scores, heads=heads, **params.plan.get("random", {}))
    how = {"dtype": params.dtype, **params.model, "checks": snakemake.input.checks}
    model = model_of(settings, name, description, **how)
    inputs = [source, *scored.values()]
    record = record_of(params, settings.results, inputs=inputs, description=description, model=model)
    budget = settings.compute.token_budget
    # All shards of a cell keep their parts in one folder. A batch is the same however many jobs share the work, so
    # finished batches stay useful if the number of jobs changes before the cell is done.
    whole = output.with_name(f"{snakemake.wildcards.decoding}.parquet")
    parts = Parts(whole, determining(record, settings, name), prompts, budget, assignments)
    rows = complete(
        model,
        tokenizer_of(settings, name, description),
        prompts,
        assignments,
        Ablation.of(params.ablation),
        Decoding(**params.decoding),
        context_length=described["context_length"],
        eos_token_ids=described["eos_token_ids"],
        token_budget=budget,
        parts=parts,
        paired=plan.paired,
        shard=shard,
        shards=shards,
    )
    record["out_of_memory"] = smallest_piece(parts)
    if shards > 1:
        record["token_budget"] = budget  # for the merge
    files.write("completions", output, rows, dict(snakemake.wildcards), record)
    if shards == 1:
        parts.remove()
