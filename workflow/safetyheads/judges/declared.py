"""The judges that a configuration declares: made from their settings, and asked what they are.

Those that compute with a model are made elsewhere (`jobs.loaded_judge`); here only what they find is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judges.keywords import LISTS, KeywordJudge, keyword_judge
from safetyheads.judges.recorded import FileJudge, file_judge
from safetyheads.judges.texts import checked
from safetyheads.judging import NEED_A_MODEL, Detects

KINDS = ("keywords", "file", *NEED_A_MODEL)
"""The kinds of judges that a configuration can declare."""

NAMES = tuple(LISTS)
"""The judges that every configuration can use without declaring them and without a model."""


def judge(name: str, texts: Iterable[str]) -> pd.DataFrame:
    """The verdicts of the judge `name` (one of `NAMES`) on completions: a table with one row per text.

    Its columns are harmful (bool), probability (NaN where a judge follows rules) and reason. Rows are in the order of
    `texts`, with its index if it is a Series. Raises SafetyHeadsError for an unknown judge and for texts that are not
    strings.
    """
    if name not in NAMES:
        raise SafetyHeadsError(f"There is no judge {name!r}. Known judges: {', '.join(NAMES)}.{nearest(name, NAMES)}")
    return keyword_judge(name).judge(texts if isinstance(texts, pd.Series) else list(checked(texts)))


def from_config(
    kind: str, list: str | Sequence[str] = (), *, path: str | Path = "", detects: Detects = "harm"
) -> KeywordJudge | FileJudge:
    """The judge that a configuration declares, such as `from_config(kind="keywords", list=["No way"])`.

    `list` is the name of a list or a list of keywords; `path` and `detects` are those of a judge of the kind `file`.
    The verdicts come from the judge's method `judge`. Raises SafetyHeadsError for a kind that is unknown or needs a
    model, and as `keyword_judge` and `file_judge` do.
    """
    if kind == "keywords":
        return keyword_judge(list)
    if kind == "file":
        return file_judge(path, detects)
    if kind in NEED_A_MODEL:
        raise SafetyHeadsError(f"A judge of the kind {kind!r} needs a model: its verdicts come from the rule `judged`.")
    raise SafetyHeadsError(
        f"There is no kind of judge {kind!r}. Known kinds: {', '.join(KINDS)}.{nearest(kind, KINDS)}"
    )


def detects(settings: Mapping[str, Any]) -> Detects:
    """What a judge with these settings finds. Keywords find refusals; the others say so themselves."""
    found: Detects = "refusal" if settings["kind"] == "keywords" else settings.get("detects", "harm")
    return found


def harm_judges(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those judges that tell harmful answers apart and do not look for refusals.

    `declared` has the settings of each judge, by name, as a configuration gives them.
    """
    return [name for name, settings in declared.items() if detects(settings) == "harm"]


def keyword_judges(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those judges that go by keywords, with `declared` as for `harm_judges`."""
    return [name for name, settings in declared.items() if settings["kind"] == "keywords"]
