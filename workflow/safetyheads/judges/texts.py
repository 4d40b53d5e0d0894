"""What all judges ask of texts, and how they read apostrophes."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import pandas as pd

from safetyheads.errors import SafetyHeadsError

APOSTROPHES = "\u2018\u2019\u02bc\uff07"
"""Typographic apostrophes."""
_STRAIGHT = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))


def checked(texts: Iterable[str]) -> Iterable[str]:
    """The texts, one by one. Raises SafetyHeadsError if they are not a list of strings."""
    if isinstance(texts, str | bytes | Mapping | pd.DataFrame):
        raise SafetyHeadsError(
            f"The texts to judge were given as one {type(texts).__name__}: give a list of strings, one per completion."
        )
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise SafetyHeadsError(
                f"Text {position} (counted from 0) of those to judge is {text!r}, a {type(text).__name__}: "
                "every completion must be a string (an empty one is allowed)."
            )
        yield text


def straight_apostrophes(text: str) -> str:
    """The text with typographic apostrophes (U+2018, U+2019, U+02BC, U+FF07) as straight ones."""
    return text.translate(_STRAIGHT)


def sha256_of_text(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as 64 hexadecimal digits. Halves of surrogate pairs count as they are."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
