"""Ships and Sahara for a model in memory and queries that are plain strings: what the pipeline does over several files.

Numbers are those of the model as the caller has loaded it. The pipeline's own `models.load` computes final norm and
logits of a 16-bit model in float32; here they stay in 16 bits, so scores of heads that hardly matter are rounding. Load
the model with `dtype=torch.float32` where small differences count.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads import prompts
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_shift import first_tokens
from safetyheads.attribution.sahara import Representation
from safetyheads.attribution.sahara import sahara as sahara_of_prompts
from safetyheads.attribution.ships import MEASURED
from safetyheads.attribution.ships import ships as ships_of_prompts
from safetyheads.engine.ablated import ablation_of, prepared
from safetyheads.engine.context import context_length
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation
from safetyheads.templates import OPENINGS, opening_tokens

TOKEN_BUDGET = 8192
"""Tokens of a batch, as in the pipeline."""


def ships(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    *,
    template: str = "{query}",
    chat: bool = False,
    kind: str = "undifferentiated",
    epsilon: float = Ablation.epsilon,
    benign: Sequence[str] | None = None,
    openings: Sequence[str] = OPENINGS,
    token_budget: int = TOKEN_BUDGET,
) -> pd.DataFrame:
    """Score every attention head for every query: KL(plain || ablated) of the next token, in nats (eq. 9).

    A KL has no sign, so two come with it (nats, see `attribution.refusal_shift`). `refusal_shift` is the change of the
    log odds that the answer begins as one of `openings` does; below 0, the head supports refusal. `answer_shift` is the
    same of the plain model's likeliest first tokens on the queries `benign`, which also tell which openings are no sign
    of a refusal. They are nan where the model hardly begins an answer with a refusal, and the latter also without
    `benign`.

    A query becomes a prompt by `template`, a text with `{query}`, or, with `chat`, by the tokenizer's chat template.
    `kind` and `epsilon` are those of `ablated`. A batch has at most `token_budget` tokens. Returns rows of query_id
    (place in `queries`, from 0), layer, head, score and the two shifts, sorted. Raises SafetyHeadsError for a model
    that cannot be ablated or is in training mode, and for queries and templates that make no prompt.
    """
    ablation, table = ablation_of(kind, epsilon), _prompts(model, tokenizer, queries, template, chat)
    others = None if benign is None else _prompts(model, tokenizer, benign, template, chat)
    ids = opening_tokens(table["text"], openings, tokenizer)
    with _nothing_kept() as parts:
        first = first_tokens(prepared(model), table, others, ids, token_budget=token_budget, parts=parts)
        scores = ships_of_prompts(prepared(model), table, ablation, first=first, token_budget=token_budget, parts=parts)
    return scores[["query_id", "layer", "head", *MEASURED]]


def sahara(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    *,
    steps: int = 3,
    rank: int = 1,
    representation: Representation = "final_norm",
    template: str = "{query}",
    chat: bool = False,
    kind: str = "undifferentiated",
    epsilon: float = Ablation.epsilon,
    token_budget: int = TOKEN_BUDGET,
) -> pd.DataFrame:
    """Search the group of heads that matters to the queries as a whole, one head a step (alg. 1).

    `rank` is the number of singular vectors that are compared, fewer than there are queries, `representation` the state
    that they are of: `final_norm` or `residual`, before it. All else is as in `ships`. Returns rows of step (from 1),
    layer, head, score (degrees, of the group so far with this head) and selected: the group is the selected heads.
    Raises SafetyHeadsError as `ships` does, and for `steps` and `rank` that are too many.
    """
    ablation, table = ablation_of(kind, epsilon), _prompts(model, tokenizer, queries, template, chat)
    with _nothing_kept() as parts:
        scores = sahara_of_prompts(
            *(prepared(model), table, ablation),
            steps=steps,
            rank=rank,
            representation=representation,
            token_budget=token_budget,
            parts=parts,
        )
    return scores[["step", "layer", "head", "score", "selected"]]


def _prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, queries: Sequence[str], template: str, chat: bool
) -> pd.DataFrame:
    """query_id and token_ids of each query's prompt."""
    if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
        raise SafetyHeadsError("The queries must be a list of strings, one for each query.")
    if not len(queries):
        raise SafetyHeadsError("There are no queries: give at least one.")
    if not chat and "{query}" not in template:
        raise SafetyHeadsError(f"The template {template!r} has no place for the query: write {{query}} in it.")
    prepared(model)
    if model.training:
        raise SafetyHeadsError("The model is in training mode, where scores would be noise: call `model.eval()` first.")
    table = pd.DataFrame({"query_id": range(len(queries)), "query": list(queries)})
    embeddings: Any = model.get_input_embeddings()
    chosen = {"chat": True} if chat else {"text": template}
    return prompts.build(table, chosen, tokenizer, context_length(model.config), len(embeddings.weight)).table


@contextmanager
def _nothing_kept() -> Iterator[Parts]:
    """A place for the batches of one call, which is deleted behind it."""
    with TemporaryDirectory() as folder:
        yield Parts(Path(folder) / "scores")
