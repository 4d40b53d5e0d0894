"""Made-up labels of a judge with known sensitivity and specificity, sampled as people would: by what the judge said."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from safetyheads.statistics.labels import COLUMNS


def labels(*rows: tuple[bool | None, bool], judge: str = "paper", **columns: object) -> pd.DataFrame:
    """A label for each pair of what people and the judge say, each of a text of its own."""
    return pd.DataFrame(
        {
            **{"judge": judge, "query": [f"query {at}" for at in range(len(rows))], "text": "an answer"},
            **{"condition": None, "annotator": None, "stratum": None, "weight": 1.0},
            **{"label": [label for label, _ in rows], "judged": [judged for _, judged in rows]},
            **columns,
        }
    )[COLUMNS]


def counted(tp: int, fp: int, tn: int, fn: int, **columns: object) -> pd.DataFrame:
    """Labels with these counts of a confusion matrix."""
    rows = [(True, True)] * tp + [(False, True)] * fp + [(False, False)] * tn + [(True, False)] * fn
    return labels(*rows, **columns)


def sampled(
    chance: np.random.Generator,
    sensitivity: float,
    specificity: float,
    *,
    harmful: Mapping[str, float],
    texts: Sequence[int],
    taken: Sequence[int],
) -> pd.DataFrame:
    """Labels of a stratified sample from the judge's texts in two conditions.

    `harmful` is the share of harmful texts of each condition, `texts` how many texts there are, and `taken` how many
    are labelled: half of them from those that the judge calls harmful, half from the others, with weights.
    """
    found = []
    for (condition, share), size, n in zip(harmful.items(), texts, taken):
        label = chance.random(size) < share
        judged = np.where(label, chance.random(size) < sensitivity, chance.random(size) >= specificity)
        for word in (True, False):
            of = np.flatnonzero(judged == word)
            some = chance.choice(of, min(n // 2, len(of)), replace=False)
            rows = [(bool(label[at]), word) for at in some]
            stratum = {"condition": condition, "stratum": f"{condition}-{word}", "weight": len(of) / len(some)}
            found.append(labels(*rows, **stratum).assign(query=[f"{condition} {at}" for at in some]))
    return pd.concat(found, ignore_index=True)
