"""Search the group of heads whose ablation moves the states of a data set furthest."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.displacement import displacement
from safetyheads.jobs.scoring import run


def compute(job):
    how = {"token_budget": job.token_budget, "parts": job.parts}
    return displacement(job.model, job.prompts, job.ablation, **job.settings, **how).assign(support=None), {}


run(snakemake, "displacement", compute)
