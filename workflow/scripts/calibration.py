"""Measure the judges that have labels against what people said."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.calibration import calibration

with logged(snakemake.log[0]):
    settings, sources = Config.model_validate(snakemake.config), list(map(Path, snakemake.input))
    found = calibration(pd.concat(map(files.read, sources), ignore_index=True))
    record = record_of(snakemake.params, settings.results)
    record |= {"made_from": together(made_from(sources, Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("calibration", Path(snakemake.output[0]), found, {}, record)
