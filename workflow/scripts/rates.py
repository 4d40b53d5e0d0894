"""Compute the attack success rates of all cells of the studies from their verdicts."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.conditions import check_comparable
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.judges.declared import harm_judges, keyword_judges
from safetyheads.statistics.pairs import COLUMNS
from safetyheads.statistics.rates import rates

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    sources, labelled = (list(map(Path, inputs[name])) for name in ("verdicts", "labelled"))
    records = made_from([*sources, *labelled], Path(settings.results))
    if not snakemake.params.mixed:
        check_comparable(records, settings.results)
    verdicts = pd.concat([files.read(path, COLUMNS) for path in sources], ignore_index=True)
    judges = {name: judge.plain() for name, judge in settings.known("judges").items()}
    labels = pd.concat(map(files.read, labelled), ignore_index=True) if labelled else None
    found = rates(verdicts, harm_judges=harm_judges(judges), keyword_judges=keyword_judges(judges), labels=labels)
    record = record_of(snakemake.params, settings.results) | {"made_from": together(records)}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("rates", Path(snakemake.output[0]), found, {}, record)
