"""What a map of single heads shows, in words: beyond chance or not, which heads, and what so few prompts can show."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from safetyheads.heads import Head
from safetyheads.report.tables import p_value
from safetyheads.statistics.significance import LEVEL

SHOWN = 5
"""The most heads that a sentence names."""


def map_words(row: Mapping[str, Any], heads: pd.DataFrame) -> str:
    """The sentences under a map. `row` is that of `maps`, and `heads` are its rows of `maps_by_head`."""
    several = [_chance(row, heads)] if row["n_heads"] > 1 else []
    return " ".join(filter(None, [_survivors(row, heads), *several, _by_the_judge(row), _power(row)]))


def first_token_words(record: Mapping[str, Any]) -> str:
    """How well the first token tells refusals, in words; empty where the record of the scores does not say."""
    first = record.get("refusal")
    if not first:
        return ""
    if first["word"]:
        return f" {first['word']}"
    beside = ""
    if first["p_benign"] is not None:
        benign = f"those of {first['benign']}" if first.get("benign") else "benign ones"
        beside = f", on {benign} {first['p_benign']:.2g} (AUROC {first['auroc']:.2f})"
    return f" The plain model begins with a refusal's first token with probability {first['p_harmful']:.2g}{beside}."


def _survivors(row: Mapping[str, Any], heads: pd.DataFrame) -> str:
    """Which heads survive the correction."""
    sure = heads[heads["p_adjusted"] < LEVEL]
    if sure.empty:
        none = "The head does not differ" if row["n_heads"] == 1 else f"No head of {row['n_heads']:,} differs"
        return f"{none} from the plain model beyond chance (Holm)."
    parts = []
    for sign, way in ((1, "above"), (-1, "below")):
        there = sure[sign * sure["effect"] > 0].sort_values(
            ["effect", "layer", "head"], ascending=[sign < 0, True, True]
        )
        if len(there):
            names = [f"{_name(one)} ({one['effect']:+.2f})" for one in there.head(SHOWN).to_dict("records")]
            more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
            parts.append(f"{', '.join(names)}{more} {way}")
    differ = "1 differs" if len(sure) == 1 else f"{len(sure)} differ"
    of = f"Of {row['n_heads']:,} heads, {differ}" if row["n_heads"] > 1 else "The head differs"
    return f"{of} from the plain model (Holm): {'; '.join(parts)}."


def _chance(row: Mapping[str, Any], heads: pd.DataFrame) -> str:
    """What the highest and the lowest of so many heads would be by chance, and the test."""
    best, worst = (heads.loc[heads["effect"].agg(of)] for of in ("idxmax", "idxmin"))
    ends = [
        f"{name} {_name(one)} {row[name]:+.2f} (by chance about {row[f'expected_{name}']:+.2f})"
        for name, one in (("highest", best), ("lowest", worst))
    ]
    apart = "further" if row["p_value"] < LEVEL else "no further"
    q = f"; Cochran's Q: p {p_value(row['cochran_p'])}" if pd.notna(row["cochran_p"]) else ""
    test = f"permutation test: p {p_value(row['p_value'])}{q}"
    return f"Effects: {', '.join(ends)}. Heads are {apart} apart from each other than chance explains ({test})."


def _name(one: Mapping[str, Any]) -> Head:
    return Head(int(one["layer"]), int(one["head"]))


def _by_the_judge(row: Mapping[str, Any]) -> str:
    """What the judge's word alone would say, where it says something else."""
    if (row["up"], row["down"]) == (row["up_asr"], row["down_asr"]):
        return ""
    count = row["up_asr"] + row["down_asr"]
    differ = "1 head differs" if count == 1 else f"{count} heads differ"
    return (
        f"By the judge's word alone, broken text included, {differ} "
        f"(highest {row['highest_asr']:+.2f}, p {p_value(row['p_value_asr'])})."
    )


def _power(row: Mapping[str, Any]) -> str:
    """How many prompts must flip before a head can survive."""
    needed, n = row["needed"], row["n"]
    one = f"one of {row['n_heads']:,} heads" if row["n_heads"] > 1 else "the head"
    asked = f"Before {one} can survive, {needed} prompts must flip one way"
    return (
        f"{asked}; this map has {n}."
        if needed <= n
        else f"{asked}, and this map has only {n}: it cannot show any head."
    )
