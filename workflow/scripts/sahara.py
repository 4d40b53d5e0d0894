"""Search, head by head, for the group of heads whose ablation changes the hidden states of a data set most (Sahara)."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.sahara import sahara
from safetyheads.jobs.scoring import run


def compute(job):
    how = {"token_budget": job.token_budget, "parts": job.parts}
    return sahara(job.model, job.prompts, job.ablation, **job.settings, **how), {}


run(snakemake, "sahara", compute)
