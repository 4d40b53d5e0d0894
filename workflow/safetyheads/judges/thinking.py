"""Completions that are still thinking: a thinking tag is open at their end, in the prompt or in the answer.

Tags are found by token ids, because an answer may write about a tag without using it. Most tokenizers of models that
think have a token for it. Where a tag comes in several tokens, these are those of its text and may be joined with what
stands beside it (`>` and a line end), so there it is looked for in what the ids say.

A query that holds the text of a tag opens nothing. So of a prompt only what the template writes around the query is
searched, unless the template lets control tokens in (`control_tokens: true`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.templates import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BEFORE = ("", " ", "\n", "\n\n", ">", "a")
_BEHIND = ("", " ", "\n", "\n\n", "<", "a")
"""What a tag is written between to see in which tokens it comes."""

_QUERY = "\ue000"
"""Stands for a query: no template and no tag has it."""


def unfinished(
    completions: pd.DataFrame,
    prompts: pd.DataFrame,
    tags: Mapping[str, str],
    template: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
) -> "pd.Series[bool]":
    """Which completions end while a thinking tag is open, which the prompt or the answer itself opened.

    `completions` and `prompts` have the columns query_id and token_ids; the result has the index of `completions`.
    `tags` has the texts `open` and `close`, and `template` is that of the prompts. Raises SafetyHeadsError if the
    tokenizer does not know a tag.
    """
    opening, closing = (tag_ids(tags[key], tokenizer) for key in ("open", "close"))
    if not template.get("control_tokens"):
        prompts = prompts.assign(token_ids=[_around_query(template, tokenizer)] * len(prompts))
    begun = dict(zip(prompts["query_id"], prompts["token_ids"]))
    answers = list(zip(completions["query_id"], completions["token_ids"]))
    if opening and closing:
        opened = {query: _last_opens(ids, opening, closing) for query, ids in begun.items()}
        own = [(query, _last_opens(ids, opening, closing)) for query, ids in answers]
        ends = [opened[query] if last is None else last for query, last in own]
    else:
        said = {query: _said(ids, tokenizer) for query, ids in begun.items()}
        texts = [said[query] + _said(ids, tokenizer) for query, ids in answers]
        ends = [text.rfind(tags["open"]) > text.rfind(tags["close"]) for text in texts]
    return pd.Series([bool(end) for end in ends], index=completions.index, dtype=bool)


def tag_ids(tag: str, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The ids of the tokens that hold a tag: one, or several where tokens hold what stands beside it, too.

    Empty if the tag comes in several tokens, between any neighbours. Raises SafetyHeadsError if the tokenizer does not
    know its characters.
    """
    said = {}
    for text in (f"{before}{tag}{behind}" for before in _BEFORE for behind in _BEHIND):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if tag in _said(ids, tokenizer):
            said[text] = {id_ for id_ in ids if tag in _said([id_], tokenizer)}
    if not said:
        ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
        raise SafetyHeadsError(
            f"The tokenizer does not know the thinking tag {tag!r}: it reads it as {_said(ids, tokenizer)!r}. See in "
            "the model's chat template how it marks its thinking, and write so in `thinking: {open: ..., close: ...}` "
            "of the model."
        )
    return set().union(*said.values()) if all(said.values()) else set()


def _around_query(template: Mapping[str, Any], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The token ids of what a template writes before and behind a query."""
    around = Writer(template, tokenizer).text(_QUERY).split(_QUERY)
    return [id_ for text in around for id_ in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _last_opens(ids: Sequence[int], opening: set[int], closing: set[int]) -> bool | None:
    """Whether the last tag in token ids is one that opens; None if there is none."""
    last = next((id_ for id_ in reversed(ids) if id_ in opening or id_ in closing), None)
    return None if last is None else last in opening


def _said(ids: Iterable[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    """What token ids say, control tokens too."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
