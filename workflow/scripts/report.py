"""Collect the results of all stages and render the page."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import apart, provenance, versions
from safetyheads.config.load import Config
from safetyheads.jobs.conditions import mixed
from safetyheads.jobs.records import commit
from safetyheads.jobs.run import logged
from safetyheads.methods import OWN_STAGES, SCORES
from safetyheads.report import TABLES, Experiment, ReportData, build


def table(paths, columns=None):
    """The rows of several artefacts of one stage, one after another; an empty table if there are no paths."""
    return pd.concat([files.read(Path(path), columns) for path in paths] or [pd.DataFrame()], ignore_index=True)


def used(settings, key):
    """The settings behind the names that the studies list under `key`, such as `templates`."""
    names = sorted({name for study in settings.studies.values() for name in getattr(study, key)})
    return {name: settings.known(key)[name].plain() for name in names}


with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    record = provenance(Path(inputs.rates))
    records = apart(record["made_from"])
    data = ReportData(
        title=settings.report.title,
        studies={name: study.plain() for name, study in settings.studies.items()},
        models={Path(path).stem: files.read_json(path) for path in inputs.models},
        checks={checked["model"]: checked for checked in map(files.read_json, inputs.checks)},
        **{name: files.read(Path(path)) for name, path in inputs.items() if name in TABLES},
        ships=table(inputs.ships),
        sahara=table(inputs.sahara),
        scores={name: table(inputs[name]) for name in SCORES if name not in OWN_STAGES and inputs[name]},
        datasets=table(inputs.datasets, ["dataset", "query_id", "category"]),
        benign=snakemake.params.benign,
        contrasts={(one[0], one[1]): (one[2], one[3]) for one in snakemake.params.contrasts},
        attribution=settings.attribution.plain(),
        record=record,
        page={"versions": versions(), **commit(Path(snakemake.scriptdir).parents[1])},
        mixed=[f"{one.path}: {one.words}" for one in mixed(records)],
        head_sets=settings.head_sets,
        experiments={
            name: Experiment(kind, Path(figure).read_text(encoding="utf-8"), pd.read_csv(numbers))
            for (name, kind), numbers, figure in zip(snakemake.params.experiments, inputs.numbers, inputs.figures)
        },
        **{key: used(settings, key) for key in ("templates", "ablations", "decodings", "judges")},
    )
    files.write_text(Path(snakemake.output[0]), build(data))
