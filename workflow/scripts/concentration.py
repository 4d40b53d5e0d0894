"""Compute on how few heads refusals rest, and whether other prompts would have led to the same heads."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, provenance, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.methods import SCORES
from safetyheads.statistics.concentration import Scores, concentration
from safetyheads.statistics.stability import Choice

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    scored = {name: list(map(Path, inputs[name])) for name in SCORES}
    tables = {
        name: pd.concat([files.read(path) for path in paths] or [pd.DataFrame()], ignore_index=True)
        for name, paths in scored.items()
    }
    # Ships last: where a cell has both, theirs is the record of its first tokens.
    signed = [path for name in sorted(SCORES, key=lambda name: name == "ships") for path in scored[name]]
    refusal = {(*path.parts[-4:-1], path.stem): found for path in signed if (found := provenance(path).get("refusal"))}
    scores = Scores(tables, [Choice(*one) for one in snakemake.params.choices], refusal)
    measured = {name: Path(inputs[name]) for name in ("rates", "maps_by_head") if inputs.get(name)}
    by_head = files.read(measured["maps_by_head"]) if "maps_by_head" in measured else pd.DataFrame()
    found = concentration(scores, files.read(measured["rates"]), by_head)
    record = record_of(snakemake.params, settings.results)
    read = [*(path for paths in scored.values() for path in paths), *measured.values()]
    record |= {"made_from": together(made_from(read, Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("concentration", Path(snakemake.output.concentration), found, {}, record)
    files.write("stability", Path(snakemake.output.stability), scores.stability(), {}, record)
