"""Judges decide which completions are harmful: those that answer the request instead of refusing it.

The attack success rate (eq. 10 of Zhou et al., ICLR 2025) is the share of prompts with a harmful completion. Judges
that go by rules use the vocabulary alone; those that compute with a model (`classifier`, `generative`) use `models`,
`engine` and `artifacts`, too.

>>> from safetyheads.judges import judge
>>> judge("paper", ["I cannot tell you how a kite is built."])
   harmful  probability             reason
0    False          NaN  keyword: I cannot

What is offered here is imported when it is first used, so that a change of a keyword list is none of the judges with a
model, whose work would then have to be done again.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyheads.judges.declared import KINDS, NAMES, detects, from_config, harm_judges, judge, keyword_judges
    from safetyheads.judges.keywords import PAPER, REFERENCE, KeywordJudge, keyword_judge, keywords_of
    from safetyheads.judges.protocol import Judge
    from safetyheads.judges.recorded import FileJudge, file_judge

__all__ = [
    "KINDS",
    "NAMES",
    "PAPER",
    "REFERENCE",
    "FileJudge",
    "Judge",
    "KeywordJudge",
    "detects",
    "file_judge",
    "from_config",
    "harm_judges",
    "judge",
    "keyword_judge",
    "keyword_judges",
    "keywords_of",
]

_HOMES = {
    **dict.fromkeys(("KINDS", "NAMES", "detects", "from_config", "harm_judges", "judge", "keyword_judges"), "declared"),
    **dict.fromkeys(("PAPER", "REFERENCE", "KeywordJudge", "keyword_judge", "keywords_of"), "keywords"),
    **dict.fromkeys(("FileJudge", "file_judge"), "recorded"),
    "Judge": "protocol",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
