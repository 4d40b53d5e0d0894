"""Score every head by what it writes along the direction from benign to harmful prompts."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.refusal_direction import refusal_direction
from safetyheads.jobs.scoring import run


def compute(job):
    how = {"token_budget": job.token_budget, "parts": job.parts}
    scores = refusal_direction(job.model, job.prompts, job.benign, **job.settings, **how)
    return scores.assign(step=None, support=None, selected=None), {}


run(snakemake, "refusal_direction", compute)
