"""Which tokens are the words with which a judge answers, such as `yes` and `no`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def word_ids(words: Iterable[str], tokenizer: "PreTrainedTokenizerBase", *, exact: bool) -> dict[str, list[int]]:
    """The ids of the tokens that say each word.

    With `exact` it is the one token that is written like the word. Otherwise it is every token that says it, whatever
    its case and the space before it. Where a tokenizer has no such token, the first tokens of the word count, if they
    begin no other of the words. Raises SafetyHeadsError where that leaves a word without tokens.
    """
    known, vocabulary = list(words), tokenizer.get_vocab()
    found = {word: _exact(word, vocabulary) if exact else _saying(word, vocabulary, tokenizer) for word in known}
    first = {word: _first(word, tokenizer) for word in known}
    for word in known:
        if not found[word]:
            others = set().union(*(set(found[other]) | first[other] for other in known if other != word))
            found[word] = sorted(first[word] - others)
        if not found[word]:
            raise SafetyHeadsError(
                f"The judge's tokenizer has no token that says {word!r} alone. Name other words in `answers`."
            )
    return found


def _exact(word: str, vocabulary: dict[str, int]) -> list[int]:
    return [vocabulary[word]] if word in vocabulary else []


def _saying(word: str, vocabulary: dict[str, int], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    core = word.strip().casefold()
    near = (id_ for token, id_ in vocabulary.items() if core in token.casefold())
    return sorted(id_ for id_ in near if str(tokenizer.decode([id_])).strip().casefold() == core)


def _first(word: str, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The first tokens of a word, as the judge may write it directly behind its prompt or behind a space."""
    ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}"))
    return {made[0] for made in ids if made}
