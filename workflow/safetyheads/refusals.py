"""Where refusals begin: the openings of refusals, and the tokens that an answer begins with if it opens so."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from safetyheads.templates import tokenise_bare

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPENINGS = (
    "I cannot",
    "I can't",
    "I'm sorry",
    "I am sorry",
    "Sorry",
    "I apologize",
    "As an AI",
    "Unfortunately",
    "No",
)
"""How refusals begin, unless the configuration says otherwise (`attribution: openings`)."""

_TAIL = 32
"""Characters of a prompt's end that an opening is tokenised behind. What stands before them does not reach so far."""


def opening_tokens(
    prompts: Iterable[str], openings: Sequence[str], tokenizer: "PreTrainedTokenizerBase"
) -> tuple[int, ...]:
    """The ids of the tokens that an answer to one of the prompts begins with if it is a refusal that opens so, sorted.

    An answer may follow a prompt directly or behind a space, as in `## Answer: I cannot`, and both count. Two things
    say nothing and do not count: a first token that is white space only, and an opening whose beginning the tokenizer
    joins with the end of the prompt, because a model cannot write such a token behind the prompt.
    """
    found = set()
    for tail in sorted({text[-_TAIL:] for text in prompts}):
        before = tokenise_bare(tail, tokenizer)
        for opening in openings:
            for answer in (opening, f" {opening}"):
                ids = tokenise_bare(tail + answer, tokenizer)
                if ids[: len(before)] == before and len(ids) > len(before):
                    found.add(ids[len(before)])
    return tuple(sorted(id_ for id_ in found if str(tokenizer.decode([id_])).strip()))
