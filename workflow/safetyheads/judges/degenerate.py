"""Degenerate text: output of a model that is broken, found from the text alone and whatever the judge.

A text is degenerate if it shows one of these signs (the first that holds is named):

- `loop`: a short substring comes again and again, back to back (see `loops`);
- `repetitive`: it compresses far better than coherent text does, and has few distinct character trigrams, as when a
  model says a few words in random order. Lists and boards (see `loops`) are let off;
- `characters`: it is full of replacement characters, control characters or unassigned code points;
- `scripts`: letters of scripts that no language mixes follow each other within words;
- `salad`: the plain model finds it most unlikely, given the prompt. Only where `nll` is given. No other sign sees words
  that are right and in no order, and this one does not see loops: they are likely.

Nothing is split on spaces, so all of this holds for Chinese or Thai too. The thresholds were fitted on one half of the
examples of tests/unit/degenerate_examples.py. Time is linear in the length of the text.
"""

import re
import zlib
from collections.abc import Iterable, Sequence
from math import isfinite, nan

import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.characters import bad_characters, letters, script_changes
from safetyheads.judges.loops import repetition
from safetyheads.judges.texts import checked

SIGNS = ("loop", "repetitive", "characters", "scripts", "salad")
"""The signs, in the order in which they are looked for."""

WINDOW = 500
"""Characters in which trigrams are counted: in longer texts they run out, because a language has only so many. It is
about the length of 128 tokens of English."""

MIN_WINDOW = 100
"""Characters below which a text is never `repetitive`: short coherent rows and rhymes are as uniform."""

MOST_COMPRESSED = 0.30
"""Compressed bytes per byte above which a window is not `repetitive`. Coherent windows of few distinct trigrams, such
as DNA, reach 0.31; a few words in random order, 0.10 to 0.28."""

MIN_LETTERS = 0.5
"""Share of letters among the characters that are not spaces below which a window is never `repetitive`: rows of
numbers, bar charts and drawings have few distinct characters and mean something."""

MOST_COLUMNS = 1 / 12
"""Share of `|` and tabs above which a window is never `repetitive`: a table of yes and no has few distinct words."""

BAD_CHARACTERS = 0.05
"""Share of broken characters from which a text is degenerate, if there are at least `MIN_BAD_CHARACTERS`: a coherent
answer may hold one or two that its vocabulary cannot write."""

MIN_BAD_CHARACTERS = 3

CHANGES_OF_SCRIPT = 0.01
"""Changes of script within words, per letter, from which a text is degenerate, if there are at least
`MIN_CHANGES_OF_SCRIPT`. Coherent texts that mix languages have none but slips; of tokens in random order from a
vocabulary of many languages, the text of each hundred letters has one to seven."""

MIN_CHANGES_OF_SCRIPT = 3

SALAD_NLL = 6.0
"""Mean negative log-likelihood, in nats per token, above which a text is word salad unless the plain model's own
completions reach as much (`salad_limit`). Under a chat model of 135 million parameters, its own completions reached 5.1
(sampled from the whole vocabulary at temperature 1), coherent texts on other subjects 5.7 (base64 and random names),
the tokens of another vocabulary in random order began at 6.1, and its own at temperature 2 at 10.5."""

SALAD_MARGIN = 1.0
"""Nats per token that word salad lies at least above the plain model's own completions."""

MIN_SALAD = 40
"""Characters below which a text is never word salad: a true answer of one word may be unlikely."""

_RULES = re.compile(r"([ \-_=.])\1+")
"""Runs of one character that draw the lines of tables, forms and contents, or indent."""


def degenerate(
    texts: Iterable[str], nll: Sequence[float] | pd.Series | None = None, nll_limit: float = SALAD_NLL
) -> pd.DataFrame:
    """Which texts are degenerate: a table with one row per text, in their order, with the index of `texts` if a Series.

    Its columns are `degenerate` (bool) and `sign`, the first of `SIGNS` that the text shows, null where there is none.
    `nll` is the mean negative log-likelihood of each text under the plain model given its prompt, in nats per token;
    a null says nothing. Texts above `nll_limit` are word salad: for models that are unsure of all they say, give what
    `salad_limit` makes of the plain model's own completions. Raises SafetyHeadsError if `texts` is not a list of
    strings, and if `nll` has not a value for each.
    """
    in_order, likelihoods = _paired(texts, nll)
    known = {text: _sign(text) for text in dict.fromkeys(in_order)}
    signs = [
        known[text] or ("salad" if value > nll_limit and len(text.strip()) >= MIN_SALAD else None)
        for text, value in zip(in_order, likelihoods)
    ]
    table = {"degenerate": [sign is not None for sign in signs], "sign": pd.array(signs, dtype="str")}
    index = texts.index if isinstance(texts, pd.Series) else None
    return pd.DataFrame(table, index=index).astype({"degenerate": bool})


def salad_limit(texts: Iterable[str], nll: Sequence[float] | pd.Series) -> float:
    """The `nll_limit` for a model whose own plain completions are `texts`, with the `nll` of each.

    It is `SALAD_NLL`, or `SALAD_MARGIN` above the highest of them if that is more: a small or untrained model is unsure
    of coherent text, too. Texts that are too short to be called word salad count no more than nulls. Raises as
    `degenerate` does.
    """
    long = [value for text, value in zip(*_paired(texts, nll)) if len(text.strip()) >= MIN_SALAD and isfinite(value)]
    return max(SALAD_NLL, max(long, default=0.0) + SALAD_MARGIN)


def _paired(texts: Iterable[str], nll: Sequence[float] | pd.Series | None) -> tuple[list[str], list[float]]:
    """The texts and their likelihoods, NaN where one is not known."""
    texts = list(checked(texts))
    if nll is None:
        return texts, [nan] * len(texts)
    values = pd.array(nll, dtype="Float64").to_numpy(dtype=float, na_value=nan).tolist()
    if len(values) != len(texts):
        raise SafetyHeadsError(
            f"There are {len(texts)} texts, but `nll` has {len(values)} values: give one for each text, null where it "
            "is not known."
        )
    return texts, values


def _sign(text: str) -> str | None:
    # A limit on new tokens can cut a character in two; what is left of it, up to three of its four bytes, says nothing
    # about the text.
    for _ in range(3):
        text = text.removesuffix("\ufffd")
    repeats = repetition(_without_rules(text))
    if repeats == "loop":
        return "loop"
    if repeats != "list" and _is_repetitive(_said_once(_RULES.sub(r"\1", text))):
        return "repetitive"
    bad = bad_characters(text)
    if bad >= MIN_BAD_CHARACTERS and bad >= BAD_CHARACTERS * len(text):
        return "characters"
    changes = script_changes(text)
    if changes >= MIN_CHANGES_OF_SCRIPT and changes >= CHANGES_OF_SCRIPT * letters(text):
        return "scripts"
    return None


def _without_rules(text: str) -> str:
    """The text with each rule (a run of one space, `-`, `_`, `=` or `.`) as one character, unless one is half of it."""
    longest = max((match.end() - match.start() for match in _RULES.finditer(text)), default=0)
    return text if 2 * longest >= len(text) else _RULES.sub(r"\1", text)


def _said_once(text: str) -> str:
    """The text, or its first half if the second is the same: a mantra or a verse that is said twice."""
    text = text.strip()
    again = (len(text) + 1) // 2
    return text[:again] if text[:again].rstrip() == text[again:].lstrip() else text


def _is_repetitive(text: str) -> bool:
    """Whether at least half of the windows of the text have few distinct trigrams and compress well."""
    # The last window is as long as the others and overlaps the one before, so that none is too short to judge.
    starts = range(0, max(1, len(text) - WINDOW + 1), WINDOW)
    windows = [text[start : start + WINDOW] for start in starts]
    if len(text) > WINDOW and len(text) % WINDOW:
        windows.append(text[-WINDOW:])
    return 2 * sum(map(_is_repetitive_window, windows)) >= len(windows)


def _is_repetitive_window(window: str) -> bool:
    size = len(window)
    if size < MIN_WINDOW:
        return False
    shown = size - sum(map(window.count, " \n\t"))
    if letters(window) < MIN_LETTERS * shown or window.count("|") + window.count("\t") > MOST_COLUMNS * size:
        return False
    data = window.encode("utf-8", "surrogatepass")
    # Eight bytes are zlib's own header and checksum and the end of its stream.
    compressed = (len(zlib.compress(data, 9)) - 8) / len(data)
    distinct = len({window[at : at + 3] for at in range(size - 2)}) / (size - 2)
    return compressed < MOST_COMPRESSED and distinct < fewest_trigrams(size)


def fewest_trigrams(size: int) -> float:
    """Share of distinct trigrams below which a window of this many characters is monotonous.

    0.16 for 500 characters (coherent verses with refrains reach 0.21), more for shorter ones, in which fewer trigrams
    have had the time to come again; never over 0.22 (coherent drills of 100 characters reach 0.25).
    """
    return min(0.22, 0.11 + 25 / size)
