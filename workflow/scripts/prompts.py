"""Put the queries of a data set into a template and tokenise them for a model."""

from pathlib import Path

from safetyheads import prompts
from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    settings, source = Config.model_validate(snakemake.config), Path(snakemake.input.dataset)
    description = Path(snakemake.input.model)
    tokenizer = tokenizer_of(settings, snakemake.wildcards.model, description)
    model = files.read_json(description)
    rows, done = prompts.build(
        files.read(source), snakemake.params.template, tokenizer, model["context_length"], model["vocab_size"]
    )
    record = record_of(snakemake.params, settings.results, inputs=[source], description=description)
    record |= done
    record["template_hash"] = files.digest(record["config"])
    files.write("prompts", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
