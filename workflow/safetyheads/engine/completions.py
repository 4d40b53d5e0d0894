"""The completions of a plan as one table: which heads are ablated for which prompt, and what the model says then."""

from collections.abc import Sequence

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.generation import Row, generate
from safetyheads.engine.positions import borders, check_sides
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation
from safetyheads.plans import Assignment, Decoding, in_order


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: pd.DataFrame,
    assignments: Sequence[Assignment],
    ablation: Ablation | None,
    decoding: Decoding,
    *,
    context_length: int | None,
    eos_token_ids: Sequence[int],
    token_budget: int,
    parts: Parts,
    shard: int = 0,
    shards: int = 1,
) -> pd.DataFrame:
    """Complete every prompt of every assignment, `decoding.samples` times.

    A shard completes every `shards`-th batch of them. `prompts` has query_id and token_ids. Returns rows of query_id,
    variant, heads, sample, text, token_ids, n_tokens and finish_reason, sorted. Raises SafetyHeadsError if a prompt and
    its completion exceed the model's context, or cross a border of its rope scaling.
    """
    token_ids = dict(zip(prompts["query_id"], ([int(id_) for id_ in ids] for ids in prompts["token_ids"])))
    _check_context(token_ids, decoding.max_new_tokens, context_length)
    check_sides(token_ids, decoding.max_new_tokens, borders(model.config))
    keys = [(assignment, sample) for assignment in assignments for sample in range(decoding.samples)]
    rows = [Row(key.query_id, token_ids[key.query_id], key.heads, sample) for key, sample in keys]
    made = generate(
        model,
        rows,
        ablation,
        decoding,
        eos_token_ids=eos_token_ids,
        token_budget=token_budget,
        parts=parts,
        shard=shard,
        shards=shards,
    )
    table = [
        {
            "query_id": keys[index][0].query_id,
            "variant": keys[index][0].variant,
            "heads": [head._asdict() for head in keys[index][0].heads],
            "sample": keys[index][1],
            "text": tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            "token_ids": completion.token_ids,
            "n_tokens": len(completion.token_ids),
            "finish_reason": completion.finish_reason,
        }
        for index, completion in made.items()
    ]
    return in_order(pd.DataFrame(table, columns=list(COLUMNS)))


COLUMNS = ("query_id", "variant", "heads", "sample", "text", "token_ids", "n_tokens", "finish_reason")


def _check_context(token_ids: dict[str, list[int]], new_tokens: int, context_length: int | None) -> None:
    """Raise SafetyHeadsError if the longest prompt, with so many new tokens, exceeds the model's context."""
    longest = max(token_ids, key=lambda query: len(token_ids[query]))
    if context_length is not None and len(token_ids[longest]) + new_tokens > context_length:
        raise SafetyHeadsError(
            f"The prompt of {longest} has {len(token_ids[longest])} tokens; with {new_tokens} new ones it exceeds the "
            f"model's context of {context_length}. Lower `max_new_tokens`, or shorten the query or the template."
        )
