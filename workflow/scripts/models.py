"""Fetch a model if it is not here yet, check that it can be measured, and write its description."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.model_files import model_folder
from safetyheads.jobs.run import logged
from safetyheads.models.derived import check_pair, recipe
from safetyheads.models.describe import describe

with logged(snakemake.log[0], online="repo" in snakemake.params.model):
    name, params = snakemake.wildcards.model, snakemake.params.model
    settings = Config.model_validate(snakemake.config)
    sources = settings.sources(name)
    if sources:
        described = [files.read_json(path) for path in snakemake.input]
        folders = [model_folder(settings, part["model"], part["revision"]) for part in described]
        check_pair(*zip(sources, folders, strict=True))
        description = recipe(name, *described)
    else:
        description = describe(
            model_folder(settings, name, download=True),
            model=name,
            source="demo" if "demo" in params else "repo" if "repo" in params else "path",
            repo=params.get("repo"),
            revision=params.get("revision"),
            organism=params.get("demo", {}).get("kind"),
            planted=params["demo"]["planted"] if params.get("demo", {}).get("aligned") else None,
            decoy=params.get("demo", {}).get("decoy"),
        )
    files.write_json(Path(snakemake.output[0]), description)
