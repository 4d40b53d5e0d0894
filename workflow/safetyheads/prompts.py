"""Prompts: put the queries of a data set into a template, and check that the prompts hold what they should.

A prompt that does not hold its query would make a whole report about nothing. So what went in is looked for in the
text, and once more in what the token ids say.
"""

import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.templates import Writer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class Prompts(NamedTuple):
    """Prompts, and what was done to make them that goes without saying in neither queries nor template."""

    table: pd.DataFrame
    """A row for each query: query_id, text, token_ids (a list of int)."""
    done: dict[str, Any]
    """For the provenance. Empty for most templates and data sets, see `build`."""


def build(
    queries: pd.DataFrame,
    template: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
    context_length: int | None,
    vocabulary: int | None = None,
) -> Prompts:
    """Render and tokenise every query.

    `queries` has the columns query_id and query. `template` is as in `templates.render`. `context_length` is the
    model's in tokens, and `vocabulary` the number of its embeddings; None if not known. `done` of the result has

    - `content: parts` if the chat template takes messages in parts (`[{type: text, text: ...}]`), as some do that can
      take pictures;
    - `control_tokens` if queries hold the text of control tokens, such as `</s>`: which (`tokens`), in how many
      `queries`, and what became of them (`kept_as`: `text`, or `tokens` with `control_tokens: true` of the template).

    Raises SafetyHeadsError for a chat template that is missing or cannot be applied, for a prompt that has no tokens,
    more than the context or one without an embedding, that does not hold its query, system prompt and prefill, and for
    different queries that have the same token ids.
    """
    ids, contents = list(queries["query_id"]), list(queries["query"])
    writer = Writer(template, tokenizer)
    texts = [writer.text(query) for query in contents]
    for query_id, query, text in zip(ids, contents, texts):
        _check_text(query_id, query, text, template, ignored=writer.ignores_query)
    if [writer.text(query) for query in contents] != texts:
        raise SafetyHeadsError("The chat template is random: the same messages give another text each time.")
    token_ids = [writer.token_ids(query, text) for query, text in zip(contents, texts)]
    for query_id, tokens in zip(ids, token_ids):
        _check_ids(query_id, tokens, tokenizer, context_length, vocabulary)
    _check_decoded(ids, contents, token_ids, template, tokenizer)
    _check_different(ids, contents, token_ids)
    return Prompts(pd.DataFrame({"query_id": ids, "text": texts, "token_ids": token_ids}), _done(writer, contents))


def _done(writer: Writer, queries: Sequence[str]) -> dict[str, Any]:
    """What `build` describes, of these queries."""
    done: dict[str, Any] = {"content": "parts"} if writer.parts else {}
    holding = [query for query in queries if any(token in query for token in writer.control)]
    if holding:
        kept = "tokens" if writer.template.get("control_tokens") else "text"
        tokens = sorted(token for token in writer.control if any(token in query for query in holding))
        done["control_tokens"] = {"kept_as": kept, "queries": len(holding), "tokens": tokens}
        log.warning("%d queries hold control tokens (%s); they are kept as %s.", len(holding), ", ".join(tokens), kept)
    return done


def _check_text(query_id: Any, query: str, text: str, template: Mapping[str, Any], *, ignored: bool) -> None:
    """Raise SafetyHeadsError if the text lacks the query or the system prompt, white space at their ends aside."""
    for what, wanted in (("query", query), ("system prompt", template.get("system") or "")):
        if wanted.strip() not in text or (ignored and what == "query"):
            raise SafetyHeadsError(
                f"The prompt of {query_id} does not hold its {what}: the chat template made {_cut(text)} of "
                f"{_cut(wanted)}. A chat template is Jinja text that writes {{{{ message['content'] }}}} for this "
                "role, not the path of such a text."
            )


def _check_ids(
    query_id: Any, ids: list[int], tokenizer: "PreTrainedTokenizerBase", context: int | None, vocabulary: int | None
) -> None:
    if not ids:
        raise SafetyHeadsError(f"The prompt of {query_id} has no tokens at all.")
    if context is not None and len(ids) > context:
        raise SafetyHeadsError(
            f"The prompt of {query_id} has {len(ids)} tokens, but the model's context is {context}. "
            "Shorten the query or the template, or use a model with a longer context."
        )
    if vocabulary is not None and max(ids) >= vocabulary:
        raise SafetyHeadsError(
            f"The prompt of {query_id} holds the token {tokenizer.convert_ids_to_tokens(max(ids))!r} (id {max(ids)}), "
            f"for which the model has no embedding: it has {vocabulary}, from 0. The tokenizer has tokens that were "
            "added after the model was made. Use the model's own tokenizer, or a template without them."
        )


def _check_decoded(
    query_ids: Sequence[Any],
    queries: Sequence[str],
    token_ids: Sequence[list[int]],
    template: Mapping[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Look for queries, system prompt and prefill in what the token ids say, white space aside.

    A tokenizer may normalise, such as to lower case: one warning shows an example. Raises SafetyHeadsError where more
    than half of a text is lost.
    """
    changed: tuple[str, str] | None = None
    fixed = [template.get("system") or "", template.get("prefill") or ""]
    for query_id, query, ids in zip(query_ids, queries, token_ids):
        decoded = str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for wanted in (query, *fixed):
            if _without_spaces(wanted) in _without_spaces(decoded):
                continue
            if share_kept(wanted, decoded) < 0.5:
                raise SafetyHeadsError(
                    f"The prompt of {query_id} has lost most of a text: its token ids say {_cut(decoded)}, which does "
                    f"not hold {_cut(wanted)}. The tokenizer does not know these characters, or is not the model's."
                )
            changed = changed or (wanted, decoded)
    if changed:
        log.warning("The tokenizer changes texts: %s is %s to the model.", _cut(changed[0]), _cut(changed[1]))


def _without_spaces(text: str) -> str:
    return "".join(text.split())


def _plain(text: str) -> str:
    """The characters of a text that tokenizers keep: no white space, case or accents."""
    characters = _without_spaces(unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in characters if not unicodedata.combining(c))


def query_tokens(ids: Sequence[int], query: str, decode: Callable[[Sequence[int]], str]) -> list[int]:
    """The places of the tokens of a prompt that hold its query, in order; none where the ids do not say it.

    `decode` gives the text of token ids. White space, case and accents do not count, as tokenizers change them. Of
    several places that hold the query the last counts, and a token that holds some other character, too, is one of the
    query's.
    """
    ends = [len(_plain(decode(ids[: at + 1]))) for at in range(len(ids))]
    text, wanted = _plain(decode(ids)), _plain(query)
    start = text.rfind(wanted) if wanted else -1
    begins = [0, *ends[:-1]]
    places = [at for at, (low, high) in enumerate(zip(begins, ends)) if low < start + len(wanted) and high > start]
    return places if start >= 0 else []


def share_kept(wanted: str, decoded: str) -> float:
    """The share of the characters of a text that another one holds, in order; case and accents do not count."""
    ours, theirs = _plain(wanted), _plain(decoded)
    blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(1, len(ours))


def _check_different(query_ids: Sequence[Any], queries: Sequence[str], token_ids: Sequence[list[int]]) -> None:
    first: dict[tuple[int, ...], tuple[Any, str]] = {}
    for query_id, query, ids in zip(query_ids, queries, token_ids):
        other, text = first.setdefault(tuple(ids), (query_id, query))
        if text.strip() != query.strip():
            raise SafetyHeadsError(
                f"The prompts of {other} and {query_id} have the same token ids, although their queries differ: "
                f"{_cut(text)} and {_cut(query)}. The tokenizer makes them one; leave one of them out."
            )


def _cut(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:110]} ...")
