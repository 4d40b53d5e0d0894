"""Draw the answers that people label, so that judges can be compared with them.

A unit is a distinct answer: model, data set, template, condition (`plain` or `ablated`), query and text. A plan of many
head sets gives most of its answers many times over, and each counts once. Units are sorted into strata by condition, by
whether the judges disagree on them, and by outcome. Errors of judges are rare where all judges agree, so a plain random
sample would hold few of them. Rare strata are drawn from more densely here, and each row's weight, the units of its
stratum over those drawn, puts that right.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import sqrt

import numpy as np
import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.plans import PLAIN
from safetyheads.statistics.pairs import plain_rows

CELL = ["model", "dataset", "template", "ablation"]
ANSWER = ["query_id", "variant", "sample"]
OF_COMPLETIONS = [*CELL, *ANSWER, "text"]
"""What is needed of completions."""
OF_VERDICTS = [*ANSWER, "judge", "harmful", "outcome"]
"""What is needed of verdicts."""

UNIT = ["model", "dataset", "template", "condition", "query", "text"]
STRATUM = ["condition", "disagree", "outcome"]
LEAST = 2
"""How many units of each stratum are drawn at least, where there are so many: one alone has no spread."""


def answers(completions: pd.DataFrame, verdicts: pd.DataFrame, queries: Mapping[str, str]) -> pd.DataFrame:
    """The units of one file of completions: `UNIT`, disagree (bool) and outcome, each distinct row once.

    `verdicts` are those of all judges on these completions, and `queries` has the query of each query_id. Judges
    disagree where one calls the answer harmful and another does not. The outcome is that of the judge whose name comes
    first: it does not depend on the order in which a study lists its judges.
    """
    judged = verdicts.sort_values("judge", kind="stable").groupby(ANSWER, sort=False)
    told = pd.DataFrame(
        {"disagree": judged["harmful"].nunique() > 1, "outcome": judged["outcome"].first()}
    ).reset_index()
    plain = (completions["ablation"] == PLAIN) | plain_rows(completions)
    found = completions.assign(
        condition=np.where(plain, "plain", "ablated"), query=completions["query_id"].map(dict(queries))
    )
    return found.merge(told, on=ANSWER)[[*UNIT, "disagree", "outcome"]].drop_duplicates(ignore_index=True)


def draw(units: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """A stratified sample of `size` units, or all units where there are fewer.

    `units` has the columns of `answers` in any order of rows. Where rows disagree on a unit (in low precision one text
    may be judged twice), it is one on which judges disagree. The sample has `UNIT`, id, stratum (a code that tells
    nothing) and weight; weights sum to the number of units. Its order is random, so that neither strata nor models are
    seen from it. The same units, size and seed give the same sample, and a larger size keeps what a smaller one drew.
    Raises SafetyHeadsError if there are no units, or if the size does not suffice for all strata.
    """
    each = _each_once(units)
    if each.empty:
        raise SafetyHeadsError("There are no answers to draw a sample from. Run a study first.")
    each["unit"] = [sha256(json.dumps(row).encode()).hexdigest() for row in each[UNIT].itertuples(index=False)]
    each["lot"] = _lots(each["unit"], f"{seed}:lot")
    each = each.sort_values("lot", ignore_index=True)
    sizes = each.groupby(STRATUM).size()
    drawn = shares(sizes, size)
    within = each.groupby(STRATUM).cumcount()
    stratum = pd.MultiIndex.from_frame(each[STRATUM])
    kept = each[within.to_numpy() < drawn.reindex(stratum).to_numpy()]
    stratum = pd.MultiIndex.from_frame(kept[STRATUM])
    kept = kept.assign(
        id="a" + kept["unit"].str[:15],  # no number, which a spreadsheet would round
        stratum=_codes(sizes.index, seed).reindex(stratum).to_numpy(),
        weight=(sizes / drawn).reindex(stratum).to_numpy(),
        place=_lots(kept["unit"], f"{seed}:place"),  # by `lot` the densely drawn strata would come last
    )
    return kept.sort_values("place", ignore_index=True)[[*UNIT, "id", "stratum", "weight"]]


def shares(sizes: pd.Series, size: int) -> pd.Series:
    """How many units are drawn from strata of these sizes: `size` in all, or all units where there are fewer.

    Each stratum gets `LEAST`, or all that it has. What is left goes, one by one, to the stratum that has least for the
    square root of its size. Raises SafetyHeadsError if the size does not suffice for that.
    """
    drawn = sizes.clip(upper=LEAST)
    if size < drawn.sum() and size < sizes.sum():
        raise SafetyHeadsError(
            f"annotation: size: found {size}; the answers fall into {len(sizes)} strata (plain or ablated, whether "
            f"judges disagree, outcome), of each of which at least {LEAST} are drawn where there are so many; allowed: "
            f"{drawn.sum()} or more"
        )
    counts, wanted = sizes.to_list(), drawn.to_list()
    for _ in range(min(size, sum(counts)) - sum(wanted)):
        open_ = [at for at, count in enumerate(counts) if wanted[at] < count]
        wanted[max(open_, key=lambda at: sqrt(counts[at]) / (wanted[at] + 0.5))] += 1
    return pd.Series(wanted, index=sizes.index)


def _each_once(units: pd.DataFrame) -> pd.DataFrame:
    """The units, each in one row, whatever the order of rows was."""
    rows = units.drop_duplicates(ignore_index=True)
    several = rows.duplicated(UNIT, keep=False)
    if not several.any():
        return rows
    resolved = rows[several].sort_values([*UNIT, "outcome"]).drop_duplicates(UNIT).assign(disagree=True)
    return pd.concat([rows[~several], resolved], ignore_index=True)


def _codes(strata: pd.Index, seed: int) -> pd.Series:
    """The codes `s01`, `s02`, ... of strata, dealt out at random."""
    lots = _lots((json.dumps([str(value) for value in stratum]) for stratum in strata), f"{seed}:code")
    places = np.argsort(np.argsort(lots))
    return pd.Series([f"s{place + 1:02d}" for place in places], index=strata)


def _lots(names: Iterable[str], purpose: str) -> list[str]:
    """A random text for each name, to sort by. It follows from the name and the purpose alone."""
    return [sha256(f"{purpose}:{name}".encode()).hexdigest() for name in names]
