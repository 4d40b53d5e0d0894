"""Fetch the model and the template of a judge if they are not here yet, check them, and write their description."""

from pathlib import Path

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.judge_files import describe_judge
from safetyheads.jobs.run import logged

with logged(snakemake.log[0], online=snakemake.params.judge.get("path") is None):
    name = snakemake.wildcards.judge
    judge = Config.model_validate(snakemake.config).judge(name)
    files.write_json(Path(snakemake.output[0]), describe_judge(judge, name))
