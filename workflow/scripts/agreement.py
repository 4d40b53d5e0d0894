"""Count how the judges of the same completions agree with each other."""

from itertools import groupby
from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.agreement import OF_VERDICTS, agreement

with logged(snakemake.log[0]):
    settings, sources = Config.model_validate(snakemake.config), sorted(map(Path, snakemake.input.verdicts))
    cells = groupby(sources, key=lambda path: path.parent)
    found = agreement({path.stem: files.read(path, OF_VERDICTS) for path in paths} for _, paths in cells)
    record = record_of(snakemake.params, settings.results)
    record |= {"made_from": together(made_from(sources, Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("agreement", Path(snakemake.output[0]), found, {}, record)
