"""Measure accuracy on tasks with the heads of a plan ablated."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.chosen_heads import assign
from safetyheads.config.load import Config
from safetyheads.engine.task_accuracy import task_accuracy
from safetyheads.heads import Ablation, parse_head
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.jobs.sources import Sources
from safetyheads.plans import check_plan, parse_plan

with logged(snakemake.log[0]):
    output, settings, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
    name, description = snakemake.wildcards.model, Path(snakemake.input.model)
    described = files.read_json(description)
    scored = {key: Path(path) for key, path in snakemake.input.items() if key in ("scores", "less")}
    scores = {key: files.read(path) for key, path in scored.items()}
    grid = (described["layers"], described["heads"])
    plan, heads = parse_plan(snakemake.wildcards.plan), tuple(map(parse_head, params.plan.get("heads", ())))
    check_plan(plan, heads, grid, name)
    (chosen,) = assign(plan, ["every item"], grid, **scores, heads=heads)
    model = model_of(settings, name, description, dtype=params.dtype, checks=snakemake.input.checks, **params.model)
    tokenizer, ablation = tokenizer_of(settings, name, description), Ablation.of(params.ablation)
    asked = {"tasks": params.tasks, "limit": params.limit, "folder": Sources(settings).task_folder()}
    rows = task_accuracy(model, tokenizer, chosen.heads, ablation, **asked, batch_size=settings.utility.batch_size)
    record = record_of(params, settings.results, inputs=list(scored.values()), description=description, model=model)
    record |= files.read_json(Path(snakemake.input.tasks))
    files.write("utility", output, rows, dict(snakemake.wildcards), record)
