"""Search the group of heads as Sahara does, on states less the plain model's mean."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.sahara_centred import sahara_centred
from safetyheads.jobs.scoring import run


def compute(job):
    how = {"token_budget": job.token_budget, "parts": job.parts}
    return sahara_centred(job.model, job.prompts, job.ablation, **job.settings, **how).assign(support=None), {}


run(snakemake, "sahara_centred", compute)
