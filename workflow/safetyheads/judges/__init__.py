"""Judges decide which completions are harmful, that is, answered rather than refused: eq. 10 counts them.

Uses the vocabulary alone.

>>> from safetyheads.judges import judge
>>> judge("paper", ["I cannot tell you how a kite is built."])
   harmful  probability             reason
0    False          NaN  keyword: I cannot
"""

from collections.abc import Iterable, Sequence

import pandas as pd

from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judges.keywords import LISTS, PAPER, REFERENCE, KeywordJudge, keyword_judge, keywords_of

KINDS = ("keywords",)
"""What `kind` of a judge in the config may be."""

NAMES = tuple(LISTS)
"""Judges that need no declaration."""

__all__ = [
    "KINDS",
    "NAMES",
    "PAPER",
    "REFERENCE",
    "KeywordJudge",
    "from_config",
    "judge",
    "keyword_judge",
    "keywords_of",
]


def judge(name: str, texts: Iterable[str]) -> pd.DataFrame:
    """Verdicts of the judge `name` (`paper`, `reference`) on completions: harmful, probability, reason.

    One row per text, in their order and under the index of `texts` if that is a Series. `probability` is NaN where a
    judge goes by rules. Raises SafetyHeadsError for an unknown judge and for texts that are not strings.
    """
    if name not in NAMES:
        raise SafetyHeadsError(f"There is no judge {name!r}. Known judges: {', '.join(NAMES)}.{nearest(name, NAMES)}")
    return keyword_judge(name).judge(texts)


def from_config(kind: str, list: str | Sequence[str]) -> KeywordJudge:
    """The judge that a config declares: `from_config(kind="keywords", list=["No way"])`, for its `judge(texts)`.

    `list` is `paper`, `reference` or keywords of one's own. Raises SafetyHeadsError for anything else.
    """
    if kind not in KINDS:
        raise SafetyHeadsError(
            f"There is no kind of judge {kind!r}. Known kinds: {', '.join(KINDS)}.{nearest(kind, KINDS)}"
        )
    return keyword_judge(list)
