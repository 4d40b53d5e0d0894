"""What the results of a study's own cells say, by the kind of its experiment."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.hours import hours
from safetyheads.judges.declared import harm_judges, keyword_judges
from safetyheads.methods import SCORES
from safetyheads.report.figures.experiments import Results
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


def experiment_results(
    kind: str,
    inputs: Mapping[str, Iterable[str]],
    settings: Config,
    *,
    benign: Collection[str],
    gpus: Mapping[str, int],
    sizes: Mapping[str, tuple[int, int]],
) -> Results:
    """The table of an experiment of this kind, and what its figure is drawn from besides.

    `inputs` are the paths of the study's artefacts by stage, or by the name of scores. `gpus` are those of a job of
    each of the study's models, in its order, and `sizes` are as for `parameters_table`.
    """

    def read(name: str, columns: list[str] | None = None) -> pd.DataFrame:
        parts = [files.read(Path(path), columns) for path in inputs.get(name, [])]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    scored, empty = [name for name in SCORES if inputs.get(name)], pd.DataFrame()
    found = Results(empty, empty, empty, {name: read(name) for name in scored if kind != "hours"})
    if kind == "hours":
        paths = {name: inputs.get(name, []) for name in (*scored, "completions")}
        return found._replace(table=hours(Path(settings.results), paths, gpus))
    if kind == "overlap":
        return found._replace(table=overlap_table(found.scores))
    if kind == "distribution":
        return found._replace(table=distribution_table(found.scores))
    if kind == "utility":
        return found._replace(table=utility_table(read("utility")))
    if kind == "maps":
        of_maps = maps(read("verdicts", OF_VERDICTS))
        return found._replace(by_head=of_maps.by_head, table=maps_table(*of_maps))
    judges = {name: judge.plain() for name, judge in settings.known("judges").items()}
    verdicts, harm = read("verdicts", OF_VERDICTS), harm_judges(judges)
    found = found._replace(rates=rates(verdicts, harm_judges=harm, keyword_judges=keyword_judges(judges)))
    if kind == "checkpoints":
        return found._replace(table=checkpoints_table(found.rates, found.scores, list(gpus)))
    known = {"completions": read("completions", OF_COMPLETIONS), "datasets": read("datasets")}
    table = rates_table(found.rates, effects(Study(verdicts=verdicts, **known, benign=benign, harm_judges=harm)))
    if kind == "parameters":
        table = parameters_table(table, sizes, {name: len(heads) for name, heads in settings.head_sets.items()})
    return found._replace(table=table)
