"""SafetyHeads: data sets -> prompts -> scores -> completions -> verdicts -> rates, effects -> report.

The configuration says what is run (config/README.md), rules/ how; `snakemake --cores 1` runs the demo.
"""

import gc
import os
import shlex
import sys
from pathlib import Path

from snakemake.common.configfile import load_configfile
from snakemake.utils import min_version

min_version("9.27")

ROOT = Path(workflow.basedir)

# The objects of thousands of jobs all stay: to look for garbage among them takes a tenth of the time of planning.
gc.set_threshold(100_000)

if not workflow.config_settings.configfiles:

    configfile: str(ROOT / "config" / "config.yaml")


# A clone uses its own library, here and in its jobs, before whatever else is installed.
sys.path.insert(0, str(ROOT / "workflow"))
before = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
os.environ.update(PYTHONPATH=os.pathsep.join([str(ROOT / "workflow"), *before]))

from safetyheads.config.checks import check_folders
from safetyheads.config.hints import hints
from safetyheads.config.layers import (
    check_file,
    check_options_once,
    put_together,
    read_words,
)
from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.run import CONFIGURATION
from safetyheads.jobs.slurm_checks import check_profile

# A job on a cluster's node finds everything downloaded.
if workflow.remote_exec:
    os.environ.update(HF_HUB_OFFLINE="1")

files = [Path(file) for file in workflow.configfiles]
words = list(workflow.config_settings.config_args)
if workflow.is_main_process:
    options = [
        "--configfile",
        *map(str, files),
        *(["--config", *words] if words else []),
    ]
    os.environ[CONFIGURATION] = shlex.join(options)
elif CONFIGURATION in os.environ:
    options = shlex.split(os.environ[CONFIGURATION])
    words = options[options.index("--config") + 1 :] if "--config" in options else []

try:
    if workflow.is_main_process:
        check_profile(sys.argv[1:], [Path("profiles"), ROOT / "profiles"])
        check_options_once(sys.argv[1:])
    for file in files:
        check_file(file)
    layers = [(file.name, load_configfile(file)) for file in files]
    values, changed = put_together([*layers, ("--config", read_words(words))])
    settings = load_config(values)
    check_folders(Path.cwd(), ROOT)
    # Scripts get `config`, in which Snakemake has put text for the numbers of --config.
    config.clear()
    config.update(values)
except SafetyHeadsError as error:
    sys.exit(str(error))

if workflow.is_main_process:
    for line in [*changed, *hints(values, settings)]:
        print(line, file=sys.stderr)


pathvars:
    results=settings.results,


include: "rules/common.smk"
include: "rules/datasets.smk"
include: "rules/models.smk"
include: "rules/checks.smk"
include: "rules/prompts.smk"
include: "rules/ships.smk"
include: "rules/sahara.smk"
include: "rules/scores.smk"
include: "rules/attacks.smk"
include: "rules/completions.smk"
include: "rules/judges.smk"
include: "rules/verdicts.smk"
include: "rules/calibration.smk"
include: "rules/rates.smk"
include: "rules/effects.smk"
include: "rules/concentration.smk"
include: "rules/utility.smk"
include: "rules/experiments.smk"
include: "rules/report.smk"
include: "rules/annotation.smk"


rule all:
    default_target: True
    input:
        cells.measured().values(),  # which would not be missed beside a page that is there, after an error in a rule
        PATHS["report"] if cells.all else [],
        experiment_cells.paths().values(),


rule measure:
    input:
        cells.measured().values(),


rule to_judge:
    input:
        [PATHS["to_judge"].format(judge=judge) for judge in judge_cells.judges("file")],


rule attribution:
    input:
        cells.score_paths().values(),


# `snakemake figure-5` makes the experiment of this name, and nothing that only others need.
for study, made in experiment_cells.paths().items():
    if study in {rule.name for rule in workflow.rules}:
        sys.exit(
            f"studies.{study}: found the name of a rule for a study with experiment; allowed: another name, as it "
            "becomes a target of its own."
        )

    rule:
        name:
            study
        input:
            made,


announce()


onstart:
    check_cluster()
