"""Which first tokens of an answer are refusals and which are answers, for the jobs of methods that go by them."""

from typing import Any

from safetyheads.attribution.refusal_shift import FirstTokens, first_tokens
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.scoring import Job
from safetyheads.templates import opening_tokens


def first_tokens_of(job: Job) -> tuple[FirstTokens, dict[str, Any]]:
    """The first tokens by which a method goes, and what the record of its scores says of them."""
    tokenizer = tokenizer_of(job.config, job.name, job.sources["model"])
    ids = opening_tokens(job.prompts["text"], job.openings, tokenizer)
    first = first_tokens(job.model, job.prompts, job.benign, ids, token_budget=job.token_budget, parts=job.parts)
    benign = job.sources.get("benign")
    record = {**first.record(), "benign": benign.parent.name if benign else None}
    if benign == job.sources["prompts"]:  # nothing to be told apart from them
        record |= {"p_benign": None, "auroc": None}
    return first, {"refusal": record}
