"""Score every head by gates that are learned to undo refusals with few heads ablated."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.mask import mask
from safetyheads.jobs.first_tokens import first_tokens_of
from safetyheads.jobs.scoring import run


def compute(job):
    first, record = first_tokens_of(job)
    how = {"token_budget": job.token_budget, "parts": job.parts, **job.settings}
    return mask(job.model, job.prompts, job.ablation, first, **how).assign(step=None), record


run(snakemake, "mask", compute)
