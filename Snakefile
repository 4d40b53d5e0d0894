"""SafetyHeads: data sets -> prompts -> scores -> completions -> verdicts -> rates -> report.

The configuration says what is run (config/README.md), rules/ how; `snakemake --cores 1` runs the demo.
"""

import gc
import os
import shlex
import sys
from pathlib import Path

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

from safetyheads.jobs.run import CONFIGURATION
from safetyheads.jobs.slurm_checks import check_profile
from safetyheads.config.load import check_keys_once, load_config
from safetyheads.errors import SafetyHeadsError

# A job on a cluster's node finds everything downloaded.
if workflow.remote_exec:
    os.environ.update(HF_HUB_OFFLINE="1")

os.environ[CONFIGURATION] = shlex.join(map(str, workflow.configfiles))

try:
    if workflow.is_main_process:
        check_profile(sys.argv[1:], [Path("profiles"), ROOT / "profiles"])
    for file in workflow.configfiles:
        check_keys_once(Path(file))
    settings = load_config(config)
except SafetyHeadsError as error:
    sys.exit(str(error))


pathvars:
    results=settings.results,


include: "rules/common.smk"
include: "rules/datasets.smk"
include: "rules/models.smk"
include: "rules/prompts.smk"
include: "rules/ships.smk"
include: "rules/sahara.smk"
include: "rules/completions.smk"
include: "rules/verdicts.smk"
include: "rules/rates.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        PATHS["rates"],  # which would not be missed beside a page that is there, after an error in the rule
        PATHS["report"],


rule measure:
    input:
        PATHS["rates"],


rule attribution:
    input:
        cells.paths("ships", cells.scored("ships")),
        cells.paths("sahara", cells.scored("sahara")),


announce()


onstart:
    check_cluster()
