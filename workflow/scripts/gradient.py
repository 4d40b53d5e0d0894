"""Score every head by the first-order change that its ablation makes of refusing against answering."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.gradient import gradient
from safetyheads.jobs.first_tokens import first_tokens_of
from safetyheads.jobs.scoring import run


def compute(job):
    first, record = first_tokens_of(job)
    how = {"token_budget": job.token_budget, "parts": job.parts, **job.settings}
    scores, recall = gradient(job.model, job.prompts, job.ablation, first, **how)
    return scores.assign(step=None, support=None, selected=None), record | {"recall": recall}


run(snakemake, "gradient", compute)
