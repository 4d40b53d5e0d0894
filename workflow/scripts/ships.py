"""Score every head for every prompt: how far its ablation moves the next token (Ships), and which way."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.attribution.ships import ships
from safetyheads.jobs.first_tokens import first_tokens_of
from safetyheads.jobs.scoring import run


def compute(job):
    first, record = first_tokens_of(job)
    how = {"token_budget": job.token_budget, "parts": job.parts}
    return ships(job.model, job.prompts, job.ablation, first=first, **how), record


run(snakemake, "ships", compute)
