"""What people said of answers that a judge has judged: one row a label, and from them one decision a text."""

import numpy as np
import pandas as pd

from safetyheads.errors import SafetyHeadsError
from safetyheads.statistics.pairs import need

COLUMNS = ["judge", "query", "text", "condition", "annotator", "stratum", "weight", "label", "judged"]
"""What is needed of labels: the columns of `labelled/{judge}.parquet`."""

TEXT = ["judge", "query", "text", "condition", "stratum"]
"""Labels that agree in these are of one text."""

CONDITIONS = ("all", "plain", "ablated")
"""The texts that a judge is measured on: all, those of the plain model, or those of models with heads ablated."""


def checked(labels: pd.DataFrame) -> pd.DataFrame:
    """The labels with an index from 0, `label` as a nullable boolean and `stratum` without nulls, or an error.

    Raises SafetyHeadsError if columns are missing, weights are not above 0, a condition is unknown, or one text has
    been judged in two ways.
    """
    need(labels, COLUMNS, "labels")
    found = labels[COLUMNS].reset_index(drop=True)
    weight = found["weight"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(weight) & (weight > 0)))
    if len(wrong):
        raise SafetyHeadsError(
            f"Judge {found['judge'][wrong[0]]}: a label has the weight {weight[wrong[0]]}. Weights must be above 0: "
            "how many answers a labelled one stands for, or 1 for each."
        )
    unknown = sorted(set(found["condition"].dropna()).difference(CONDITIONS[1:]))
    if unknown:
        raise SafetyHeadsError(
            f"The labels have the condition {unknown[0]!r}; allowed: plain, ablated, or nothing where it is not known."
        )
    found["label"] = found["label"].astype("boolean")
    found["judged"] = found["judged"].astype("bool")
    found["stratum"] = found["stratum"].astype("object").where(found["stratum"].notna(), "")
    twice = found.groupby(TEXT, dropna=False)["judged"].transform("nunique") > 1
    if twice.any():
        first = found[twice].iloc[0]
        raise SafetyHeadsError(
            f"Judge {first['judge']}: one answer to the query {str(first['query'])[:80]!r} is judged harmful in one "
            "row of the labels and harmless in another. Judge each text once."
        )
    return found


def decided(labels: pd.DataFrame) -> pd.DataFrame:
    """One row for each text of `checked` labels: the columns `TEXT`, weight, label and judged, sorted.

    Several labels of one text are decided by majority. Labels of people who were unsure are not counted in it. If as
    many say harmful as harmless, or nobody was sure, the label is null: the text is unsure. Its weight is the mean of
    its labels' weights.
    """
    votes = labels.assign(
        harmful=labels["label"].eq(True).fillna(False), harmless=labels["label"].eq(False).fillna(False)
    )
    found = votes.groupby(TEXT, dropna=False, sort=True).agg(
        weight=("weight", "mean"), harmful=("harmful", "sum"), harmless=("harmless", "sum"), judged=("judged", "first")
    )
    found = found.reset_index()
    more = found["harmful"].to_numpy(dtype=np.int64) - found["harmless"].to_numpy(dtype=np.int64)
    label = pd.Series(more > 0, index=found.index, dtype="boolean").mask(more == 0)
    return found[[*TEXT, "weight", "judged"]].assign(label=label)
