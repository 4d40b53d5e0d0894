"""Compute what the maps of single heads show beyond the noise of so many heads on so few prompts."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.maps import maps
from safetyheads.statistics.pairs import COLUMNS

with logged(snakemake.log[0]):
    settings, sources = Config.model_validate(snakemake.config), list(map(Path, snakemake.input.verdicts))
    found = maps(pd.concat([files.read(path, COLUMNS) for path in sources], ignore_index=True))
    record = record_of(snakemake.params, settings.results)
    record |= {"made_from": together(made_from(sources, Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("maps", Path(snakemake.output.maps), found.maps, {}, record)
    files.write("maps_by_head", Path(snakemake.output.by_head), found.by_head, {}, record)
