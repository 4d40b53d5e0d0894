"""Compute on how few heads refusals rest, and whether other prompts would have led to the same heads."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, provenance, together
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.concentration import Scores, concentration
from safetyheads.statistics.stability import Choice

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    scored = {stage: list(map(Path, inputs[stage])) for stage in ("ships", "sahara")}
    tables = {
        stage: pd.concat([files.read(path) for path in paths] or [pd.DataFrame()], ignore_index=True)
        for stage, paths in scored.items()
    }
    refusal = {(*path.parts[-4:-1], path.stem): provenance(path).get("refusal", {}) for path in scored["ships"]}
    scores = Scores(**tables, choices=[Choice(*one) for one in snakemake.params.choices], refusal=refusal)
    measured = {name: Path(inputs[name]) for name in ("rates", "maps_by_head") if inputs.get(name)}
    by_head = files.read(measured["maps_by_head"]) if "maps_by_head" in measured else pd.DataFrame()
    found = concentration(scores, files.read(measured["rates"]), by_head)
    record = record_of(snakemake.params, settings.results)
    read = [*scored["ships"], *scored["sahara"], *measured.values()]
    record |= {"made_from": together(made_from(read, Path(settings.results)))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("concentration", Path(snakemake.output.concentration), found, {}, record)
    files.write("stability", Path(snakemake.output.stability), scores.stability(), {}, record)
