"""Prompts: put queries into a template, and turn the text into token ids. All of the project tokenises here."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from safetyheads.errors import SafetyHeadsError


def build(
    queries: pd.DataFrame, template: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, context_length: int | None
) -> pd.DataFrame:
    """Render and tokenise every query. Returns a table with the columns query_id, text and token_ids (lists of int).

    `queries` has the columns query_id and query. `template` is as in `render`. `context_length` is the model's in
    tokens, None if it is not known. Raises SafetyHeadsError for a prompt that has no tokens or more than the context,
    and for a chat template that is missing or cannot be applied.
    """
    texts = [render(query, template, tokenizer) for query in queries["query"]]
    token_ids = [tokenise(text, tokenizer) for text in texts]
    for query_id, ids in zip(queries["query_id"], token_ids):
        if not ids:
            raise SafetyHeadsError(f"The prompt of {query_id} has no tokens at all.")
        if context_length is not None and len(ids) > context_length:
            raise SafetyHeadsError(
                f"The prompt of {query_id} has {len(ids)} tokens, but the model's context is {context_length}. "
                "Shorten the query or the template, or use a model with a longer context."
            )
    return pd.DataFrame({"query_id": list(queries["query_id"]), "text": texts, "token_ids": token_ids})


def render(query: str, template: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of a prompt: the query in its template, then the beginning of the answer, if the template has one.

    `template` has either `text`, in which `{query}` is replaced, or `chat: true` for the tokenizer's chat template,
    then perhaps with a `system` prompt. `prefill` is the beginning of the answer. Raises SafetyHeadsError if the
    tokenizer has no chat template or if that does not accept the messages.
    """
    prefill = str(template.get("prefill") or "")
    if not template.get("chat"):
        return str(template["text"]).replace("{query}", query) + prefill
    if not tokenizer.chat_template:
        raise SafetyHeadsError(
            "The tokenizer has no chat template. Give the model one with `chat_template:`, or use a text template."
        )
    messages = [{"role": "user", "content": query}]
    if template.get("system"):
        messages.insert(0, {"role": "system", "content": template["system"]})
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise SafetyHeadsError(f"The tokenizer's chat template does not accept these messages: {error}.") from None
    return str(text) + prefill


def tokenise(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of a prompt, with the tokenizer's beginning of sequence, such as `<s>`, exactly once in front.

    Chat templates often write `<s>` into the text themselves, and the tokenizer would add a second one. Some tokenizers
    also add `</s>` at the end, which is left out, because it would tell the model that the text is over.
    """
    ids = _bare(text, tokenizer)
    start = _start(tokenizer)
    return ids if ids[: len(start)] == start else [*start, *ids]


def _bare(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _start(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer puts in front of every text: one for the beginning of a sequence, several, or none."""
    bare, whole = _bare("a", tokenizer), list(tokenizer("a")["input_ids"])
    places = [place for place in range(len(whole)) if whole[place : place + len(bare)] == bare]
    return whole[: places[0]] if bare and places else []
