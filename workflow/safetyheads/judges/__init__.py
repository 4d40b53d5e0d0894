"""Judges decide which completions are harmful: those that answer the request instead of refusing it.

The attack success rate (eq. 10 of Zhou et al., ICLR 2025) is the share of prompts with a harmful completion. Uses the
vocabulary alone.

>>> from safetyheads.judges import judge
>>> judge("paper", ["I cannot tell you how a kite is built."])
   harmful  probability             reason
0    False          NaN  keyword: I cannot
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judges.keywords import LISTS, PAPER, REFERENCE, KeywordJudge, keyword_judge, keywords_of

KINDS = ("keywords",)
"""The kinds of judges that a configuration can declare."""

NAMES = tuple(LISTS)
"""The judges that every configuration can use without declaring them."""

__all__ = [
    "KINDS",
    "NAMES",
    "PAPER",
    "REFERENCE",
    "KeywordJudge",
    "from_config",
    "harm_judges",
    "judge",
    "keyword_judge",
    "keyword_judges",
    "keywords_of",
]


def judge(name: str, texts: Iterable[str]) -> pd.DataFrame:
    """The verdicts of the judge `name` (`paper` or `reference`) on completions: a table with one row per text.

    Its columns are harmful (bool), probability (NaN where a judge follows rules) and reason. Rows are in the order of
    `texts`, with its index if it is a Series. Raises SafetyHeadsError for an unknown judge and for texts that are not
    strings.
    """
    if name not in NAMES:
        raise SafetyHeadsError(f"There is no judge {name!r}. Known judges: {', '.join(NAMES)}.{nearest(name, NAMES)}")
    return keyword_judge(name).judge(texts)


def from_config(kind: str, list: str | Sequence[str]) -> KeywordJudge:
    """The judge that a configuration declares, such as `from_config(kind="keywords", list=["No way"])`.

    `list` is `paper`, `reference`, or a list of keywords. The verdicts come from the judge's method `judge(texts)`.
    Raises SafetyHeadsError for an unknown kind or list, and for keywords that are empty.
    """
    if kind not in KINDS:
        raise SafetyHeadsError(
            f"There is no kind of judge {kind!r}. Known kinds: {', '.join(KINDS)}.{nearest(kind, KINDS)}"
        )
    return keyword_judge(list)


def harm_judges(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those judges that tell harmful answers apart and do not look for refusals.

    `declared` has the settings of each judge, by name, as `from_config` takes them.
    """
    return [name for name, settings in declared.items() if from_config(**settings).detects == "harm"]


def keyword_judges(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those judges that go by keywords, with `declared` as for `harm_judges`."""
    return [name for name, settings in declared.items() if settings["kind"] == "keywords"]
