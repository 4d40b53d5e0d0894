"""Compute what ablating the attributed heads does, beside what controls do, for all cells of the studies."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.judges.declared import harm_judges
from safetyheads.statistics.effects import Study, effects, effects_by_category
from safetyheads.statistics.harmless import COLUMNS as OF_COMPLETIONS
from safetyheads.statistics.pairs import COLUMNS as OF_VERDICTS

with logged(snakemake.log[0]):
    settings, inputs, params = Config.model_validate(snakemake.config), snakemake.input, snakemake.params
    read = {"verdicts": OF_VERDICTS, "completions": OF_COMPLETIONS, "datasets": None}
    paths = {name: list(map(Path, inputs[name])) for name in read}
    tables = {
        name: pd.concat(
            [files.read(path, columns) for path in paths[name]] or [pd.DataFrame(columns=columns)], ignore_index=True
        )
        for name, columns in read.items()
    }
    judges = {name: judge.plain() for name, judge in settings.known("judges").items()}
    labelled = list(map(Path, inputs.labelled))
    labels = pd.concat(map(files.read, labelled), ignore_index=True) if labelled else None
    named = {"benign": params.benign, "harm_judges": harm_judges(judges), "drop_leaks": params.drop_leaks}
    study = Study(**tables, **named, labels=labels)
    records = made_from([path for some in (*paths.values(), labelled) for path in some], Path(settings.results))
    record = record_of(params, settings.results) | {"made_from": together(records)}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("effects", Path(snakemake.output.effects), effects(study), {}, record)
    files.write("effects_by_category", Path(snakemake.output.by_category), effects_by_category(study), {}, record)
