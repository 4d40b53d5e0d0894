"""Make the table and the figure of an experiment from the results of its study alone."""

from hashlib import sha256
from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.latex import latex
from safetyheads.config.load import Config
from safetyheads.experiments import EXPERIMENTS
from safetyheads.jobs.hours import hours
from safetyheads.jobs.run import logged
from safetyheads.judges.declared import harm_judges, keyword_judges
from safetyheads.methods import SCORES
from safetyheads.report.figures.experiments import Results, experiment_figure
from safetyheads.statistics.checkpoints import checkpoints_table
from safetyheads.statistics.effects import Study, effects
from safetyheads.statistics.experiments import (
    distribution_table,
    maps_table,
    overlap_table,
    parameters_table,
    rates_table,
    utility_table,
)
from safetyheads.statistics.harmless import COLUMNS as OF_COMPLETIONS
from safetyheads.statistics.maps import maps
from safetyheads.statistics.pairs import COLUMNS as OF_VERDICTS
from safetyheads.statistics.rates import rates


def read(name, columns=None):
    """The rows of all inputs of this name; an empty table if there are none."""
    parts = [files.read(Path(path), columns) for path in snakemake.input.get(name, [])]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


with logged(snakemake.log[0]):
    settings, kind, empty = Config.model_validate(snakemake.config), snakemake.params.kind, pd.DataFrame()
    scored = [name for name in SCORES if snakemake.input.get(name)]
    found = Results(empty, empty, empty, {name: read(name) for name in scored if kind != "hours"})
    if kind == "hours":
        paths = {name: snakemake.input.get(name, []) for name in (*scored, "completions")}
        table = hours(Path(settings.results), paths, snakemake.params.gpus)
    elif kind in ("overlap", "distribution"):
        table = {"overlap": overlap_table, "distribution": distribution_table}[kind](found.scores)
    elif kind == "utility":
        table = utility_table(read("utility"))
    elif kind == "maps":
        of_maps = maps(read("verdicts", OF_VERDICTS))
        found, table = found._replace(by_head=of_maps.by_head), maps_table(*of_maps)
    else:
        judges = {name: judge.plain() for name, judge in settings.known("judges").items()}
        verdicts, harm = read("verdicts", OF_VERDICTS), harm_judges(judges)
        found = found._replace(rates=rates(verdicts, harm_judges=harm, keyword_judges=keyword_judges(judges)))
        known = {"completions": read("completions", OF_COMPLETIONS), "datasets": read("datasets")}
        study = Study(verdicts=verdicts, **known, benign=snakemake.params.benign, harm_judges=harm)
        table = rates_table(found.rates, effects(study))
        if kind == "checkpoints":
            table = checkpoints_table(found.rates, found.scores, list(snakemake.params.gpus))
        if kind == "parameters":
            sets = {name: len(heads) for name, heads in settings.head_sets.items()}
            table = parameters_table(table, snakemake.params.sizes, sets)
    prefix = f"x{sha256(snakemake.wildcards.study.encode()).hexdigest()[:8]}"  # figures stand on one page
    output, label = snakemake.output, f"{snakemake.wildcards.study}: {EXPERIMENTS[kind].about}"
    files.write_text(Path(output.table), table.to_csv(index=False))
    files.write_text(Path(output.latex), latex(table, label))
    files.write_text(Path(output.figure), experiment_figure(kind, found._replace(table=table), label, prefix))
