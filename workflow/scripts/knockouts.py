"""Score every head by a Lasso of refusing against answering on random sets of ablated heads."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.knockouts import knockouts
from safetyheads.jobs.first_tokens import first_tokens_of
from safetyheads.jobs.scoring import run


def compute(job):
    first, record = first_tokens_of(job)
    how = {"token_budget": job.token_budget, "parts": job.parts, **job.settings}
    return knockouts(job.model, job.prompts, job.ablation, first, **how).assign(step=None), record


run(snakemake, "knockouts", compute)
