"""What an attack template changes: each head's scores under two templates, on the same queries.

The same queries are put into a clean template and into one that attacks, such as a role play or the beginning of an
answer. Prompts are joined by query_id. So what is compared is what the attack does to each head, not other queries.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from safetyheads.statistics.resampling import resampled

MEASURED = ("score", "refusal_shift", "to_query")
LEAST = 0.01
"""Nats of mean Ships below which a change is none to speak of: rounding makes some whose intervals exclude 0."""
COLUMNS = [
    *("model", "dataset", "ablation", "clean", "attack", "layer", "head", "n"),
    *(f"{name}{end}" for name in MEASURED for end in ("_clean", "_attack", "_change", "_change_low", "_change_high")),
]
_KEYS = ["query_id", "layer", "head"]


class Attacked(NamedTuple):
    """One comparison: the attack template beside the clean one, for a model, data set and ablation."""

    model: str
    dataset: str
    ablation: str
    clean: str
    attack: str


def attack_shifts(
    attacked: Attacked, ships: Mapping[str, pd.DataFrame], attention: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """How each head's scores change from the clean template to the attack: a table with the columns `COLUMNS`.

    `ships` and `attention` have, for both templates by name, the rows of these stages: query_id, layer, head, and score
    (nats), refusal_shift (nats) or to_query (0 to 1). All values are means over the `n` queries that both templates
    have; `_change` is attack less clean, and its interval is the 95 % percentile bootstrap over queries (null for one
    query). What is missing for a query, such as the shifts of a model that hardly refuses under an attack, makes its
    mean null.
    """
    both = [_of_template(ships[name], attention[name]) for name in (attacked.clean, attacked.attack)]
    joined = both[0].merge(both[1], on=_KEYS, suffixes=("_clean", "_attack"), validate="one_to_one")
    joined = joined.sort_values(["layer", "head", "query_id"], ignore_index=True)
    heads = joined[["layer", "head"]].drop_duplicates(ignore_index=True)
    n = len(joined) // max(1, len(heads))
    rows = heads.assign(**attacked._asdict(), n=n)
    weights = resampled(0, 0, n)
    for name in MEASURED:
        clean, attack = (joined[f"{name}_{end}"].to_numpy(dtype=np.float64) for end in ("clean", "attack"))
        change = (attack - clean).reshape(len(heads), n)
        drawn = np.percentile(change @ weights.T, [2.5, 97.5], axis=1)  # nan stays nan
        rows[f"{name}_clean"], rows[f"{name}_attack"] = (
            part.reshape(change.shape).mean(axis=1) for part in (clean, attack)
        )
        rows[f"{name}_change"] = change.mean(axis=1)
        rows[f"{name}_change_low"], rows[f"{name}_change_high"] = drawn if n > 1 else np.full_like(drawn, np.nan)
    return rows[COLUMNS]


def changed(attacks: pd.DataFrame) -> pd.Series:
    """Whether the interval of a head's change of mean Ships excludes 0, and the change is `LEAST` or more."""
    beyond: pd.Series = (attacks["score_change_low"] > 0) | (attacks["score_change_high"] < 0)
    return beyond & (attacks["score_change"].abs() >= LEAST)


def _of_template(ships: pd.DataFrame, attention: pd.DataFrame) -> pd.DataFrame:
    measured = ships[[*_KEYS, "score", "refusal_shift"]].astype({"query_id": "str"})
    looked = attention[[*_KEYS, "to_query"]].astype({"query_id": "str"})
    return measured.merge(looked, on=_KEYS, validate="one_to_one")
