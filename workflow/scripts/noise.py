"""Compute how often the plain model answers differently because it was computed in another batch."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.noise import OF_COMPLETIONS, PLAIN_ANSWERS, noise
from safetyheads.statistics.pairs import COLUMNS as OF_VERDICTS

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    judged, made = (list(map(Path, inputs[name])) for name in ("verdicts", "completions"))
    verdicts = pd.concat([files.read(path, OF_VERDICTS) for path in judged], ignore_index=True)
    answers = [files.read(path, OF_COMPLETIONS, variants=PLAIN_ANSWERS) for path in made]
    found = noise(verdicts, pd.concat(answers, ignore_index=True))
    record = record_of(snakemake.params, settings.results)
    record |= {"made_from": together(made_from([*judged, *made], Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("noise", Path(snakemake.output[0]), found, {}, record)
