"""Fetch the data of the tasks on which accuracy is measured."""

import json
from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.engine.task_accuracy import fetch_tasks
from safetyheads.jobs.run import logged

with logged(snakemake.log[0], online=True):
    folder = snakemake.params.folder
    found = fetch_tasks(snakemake.params.tasks, Path(folder).resolve() if folder else None)
    files.write_text(Path(snakemake.output[0]), json.dumps(found, indent=2) + "\n")
