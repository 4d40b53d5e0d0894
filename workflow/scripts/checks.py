"""Check a model on this device, in the number format and with the attention that it is measured with."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.checked_model import checked
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    settings, params = Config.model_validate(snakemake.config), snakemake.params
    name, description = snakemake.wildcards.model, Path(snakemake.input.model)
    model = model_of(settings, name, description, dtype=params.dtype, **params.model)
    results = checked(settings, name, description, model)
    record = record_of(params, settings.results, description=description, model=model)
    checks = [result.plain() for result in results]
    files.write_json(Path(snakemake.output[0]), {"model": name, "checks": checks, "record": record})
