"""Fetch the data of the tasks on which accuracy is measured."""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.run import logged
from safetyheads.jobs.sources import Sources
from safetyheads.tasks import fetch_tasks

with logged(snakemake.log[0], online=True):
    settings = Config.model_validate(snakemake.config)
    found = fetch_tasks(snakemake.params.tasks, Sources(settings).task_folder())
    files.write_json(Path(snakemake.output[0]), found)
