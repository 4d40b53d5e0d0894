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
    settings, name = Config.model_validate(snakemake.config), snakemake.wildcards.model
    how, description = {key: snakemake.wildcards[key] for key in ("dtype", "attention")}, Path(snakemake.input.model)
    model = model_of(settings, name, description, **how)
    results = checked(settings, name, description, model)
    record = record_of({**snakemake.params, **how}, settings.results, description=description, model=model)
    checks = [result.plain() for result in results]
    files.write_json(Path(snakemake.output[0]), {"model": name, "checks": checks, "record": record})
