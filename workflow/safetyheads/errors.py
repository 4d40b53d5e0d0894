"""The one error that is written for the person who runs the pipeline."""

from collections.abc import Iterable
from difflib import get_close_matches


class SafetyHeadsError(Exception):
    """A mistake in the input or a problem of the machine that the user can put right.

    The message says what was found and where, what is allowed, and what to do. It is shown without a traceback, which
    would only hide it.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message: ` Did you mean 'x'?` with the known name closest to `name`; empty if none is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
