"""Compare the scores of heads under attack templates with those under clean ones."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.attacks import Attacked, attack_shifts

with logged(snakemake.log[0]):
    settings, sources = Config.model_validate(snakemake.config), list(map(Path, snakemake.input))
    results, made = Path(settings.results), []

    def read(stage, one, template):
        keys = {"model": one.model, "dataset": one.dataset, "ablation": one.ablation, "template": template}
        return files.read(results / STAGES[stage].path.format(**keys))

    for one in (Attacked(*words) for words in snakemake.params.attacked):
        templates = (one.clean, one.attack)
        ships, attention = ({name: read(stage, one, name) for name in templates} for stage in ("ships", "attention"))
        made.append(attack_shifts(one, ships, attention))
    record = record_of(snakemake.params, settings.results)
    record |= {"made_from": together(made_from(sources, results))}
    record |= commit(Path(snakemake.scriptdir).parents[1])
    files.write("attacks", Path(snakemake.output[0]), pd.concat(made, ignore_index=True), {}, record)
