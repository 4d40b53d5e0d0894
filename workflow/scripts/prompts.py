"""Put the queries of a data set into a template and tokenise them for a model."""

from pathlib import Path

from safetyheads import prompts
from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.run import logged, open_tokenizer, provenance

with logged(snakemake.log[0]):
    name = snakemake.wildcards.model
    description = files.read_json(snakemake.input.model)
    tokenizer = open_tokenizer(Config.model_validate(snakemake.config), name, Path(snakemake.input.model))
    queries = files.read(Path(snakemake.input.dataset))
    rows = prompts.build(queries, snakemake.params.template, tokenizer, description["context_length"])
    record = provenance(snakemake.params, Path(snakemake.input.model))
    record["template_hash"] = files.digest(record["config"])
    files.write("prompts", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
