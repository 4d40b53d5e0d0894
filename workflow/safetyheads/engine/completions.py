"""The completions of a plan as one table: which heads are ablated for which prompt, and what the model says then."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.generation import Completion, Row, generate
from safetyheads.engine.plain_rows import Answer, Said, in_order, names
from safetyheads.engine.positions import borders, check_sides
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation
from safetyheads.plans import Assignment, Decoding


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
    paired: bool = False,
    shard: int = 0,
    shards: int = 1,
) -> pd.DataFrame:
    """Complete every prompt of every assignment, `decoding.samples` times.

    A shard completes every `shards`-th batch of them. `prompts` has query_id and token_ids. Returns rows of the columns
    `COLUMNS`, sorted: first_kl (nats) is null for plain rows, plain_nll (nats per token) for empty answers. With
    `paired`, batches hold plain rows, which are kept as `plain_rows` says. Raises SafetyHeadsError if a prompt and its
    completion exceed the model's context, or cross a border of its rope scaling.
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
        paired=paired,
        likelihoods=True,
        shard=shard,
        shards=shards,
    )

    def row(assignment: Assignment, sample: int, completion: Completion, paired: str | None) -> dict[str, Any]:
        return {
            "query_id": assignment.query_id,
            "variant": assignment.variant,
            "heads": [head._asdict() for head in assignment.heads],
            "sample": sample,
            "text": tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            "token_ids": completion.token_ids,
            "n_tokens": len(completion.token_ids),
            "finish_reason": completion.finish_reason,
            "paired": paired,
            "first_kl": completion.first_kl,
            "plain_nll": completion.plain_nll,
        }

    paired_with: dict[int, Said] = {}  # index of a row -> what the plain row of its own batch says
    once: dict[Said, Said] = {}  # most say the same: one tuple is enough for all of them
    plain: dict[Said, Completion] = {}
    for index, completion in made.items():
        if completion.plain:
            (assignment, sample), answer = keys[index], _answer(completion.plain)
            said = (assignment.query_id, sample), answer
            paired_with[index] = once.setdefault(said, said)
            plain[said] = completion.plain
    named = names(paired_with.values())
    table = [
        row(*keys[index], completion, named[paired_with[index]] if index in paired_with else None)
        for index, completion in made.items()
    ]
    table += [
        row(Assignment(query_id, named[(query_id, sample), answer], ()), sample, completion, None)
        for ((query_id, sample), answer), completion in plain.items()
    ]
    return in_order(pd.DataFrame(table, columns=list(COLUMNS)))


COLUMNS = (
    *("query_id", "variant", "heads", "sample", "text", "token_ids", "n_tokens", "finish_reason"),
    *("paired", "first_kl", "plain_nll"),
)


def _answer(completion: Completion) -> Answer:
    return tuple(completion.token_ids), completion.finish_reason


def _check_context(token_ids: dict[str, list[int]], new_tokens: int, context_length: int | None) -> None:
    """Raise SafetyHeadsError if the longest prompt, with so many new tokens, exceeds the model's context."""
    longest = max(token_ids, key=lambda query: len(token_ids[query]))
    if context_length is not None and len(token_ids[longest]) + new_tokens > context_length:
        raise SafetyHeadsError(
            f"The prompt of {longest} has {len(token_ids[longest])} tokens; with {new_tokens} new ones it exceeds the "
            f"model's context of {context_length}. Lower `max_new_tokens`, or shorten the query or the template."
        )
