"""Measure how much each head looks at the query when the answer is about to begin."""

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.attribution.attention import attention_to_query
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.scoring import run
from safetyheads.prompts import query_tokens


def compute(job):
    decode = tokenizer_of(job.config, job.name, job.sources["model"]).decode
    queries = files.read(job.sources["queries"], ["query_id", "query"]).set_index("query_id")["query"]
    ids = zip(job.prompts["query_id"], job.prompts["token_ids"])
    places = [query_tokens(list(map(int, tokens)), queries[query_id], decode) for query_id, tokens in ids]
    return attention_to_query(job.model, job.prompts, places, token_budget=job.token_budget, parts=job.parts), {}


run(snakemake, "attention", compute)
