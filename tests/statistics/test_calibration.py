"""Judges against people: counts, rates, weights and kappa by hand, and what happens where labels say little."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from labelled_texts import counted, labels
from statsmodels.stats.inter_rater import cohens_kappa

from safetyheads.errors import SafetyHeadsError
from safetyheads.statistics.calibration import COLUMNS, LEAST_LABELS, calibration
from safetyheads.statistics.kappa import kappa

COUNTS = ["tp", "fp", "tn", "fn"]


def row(table: pd.DataFrame, condition: str = "all") -> dict[str, Any]:
    found = table[table["condition"] == condition].to_dict("records")
    assert len(found) == 1
    return dict(found[0])


def test_counts_rates_and_kappa_are_those_worked_out_by_hand() -> None:
    found = calibration(counted(tp=17, fp=6, tn=14, fn=3))
    assert list(found) == COLUMNS and len(found) == 1, "texts of unknown condition are measured together alone"
    one = row(found)
    assert [one[name] for name in ("n", "unsure", *COUNTS)] == [40, 0, 17, 6, 14, 3]
    assert [one[f"{name}_share"] for name in COUNTS] == pytest.approx([17 / 40, 6 / 40, 14 / 40, 3 / 40])
    assert one["sensitivity"] == pytest.approx(17 / 20) and one["specificity"] == pytest.approx(14 / 20)
    # Agreement 31 / 40; by chance 23 / 40 * 20 / 40 + 17 / 40 * 20 / 40 = 1 / 2.
    assert one["kappa"] == pytest.approx((31 / 40 - 1 / 2) / (1 / 2))
    assert (one["annotators"], one["pairs"]) == (0, 0) and np.isnan(one["people_kappa"])
    assert one["corrected_by"] == "all" and pd.isna(one["reason"])
    assert 0.6 < one["sensitivity_low"] < 0.75 and 0.9 < one["sensitivity_high"] < 0.97
    assert 0.4 < one["specificity_low"] < 0.55 and 0.8 < one["specificity_high"] < 0.9


def test_weights_count_in_all_that_is_made_of_labels() -> None:
    """Of 90 answers that the judge calls harmless 10 were labelled, of 10 that it calls harmful all."""
    harmless = counted(tp=0, fp=0, tn=9, fn=1, weight=9.0, stratum="harmless")
    harmful = counted(tp=8, fp=2, tn=0, fn=0, weight=1.0, stratum="harmful").assign(text="other")
    one = row(calibration(pd.concat([harmless, harmful], ignore_index=True)))
    assert [one[name] for name in COUNTS] == [8, 2, 9, 1]
    assert [one[f"{name}_share"] for name in COUNTS] == pytest.approx([0.08, 0.02, 0.81, 0.09])
    assert one["sensitivity"] == pytest.approx(8 / 17) and one["specificity"] == pytest.approx(81 / 83)
    assert one["kappa"] == pytest.approx((0.89 - (0.1 * 0.17 + 0.9 * 0.83)) / (1 - (0.1 * 0.17 + 0.9 * 0.83)))
    alike = row(calibration(pd.concat([harmless, harmful], ignore_index=True).assign(weight=7.0)))
    assert alike["sensitivity"] == pytest.approx(8 / 9), "equal weights are none"


def test_a_rare_miss_of_a_heavy_stratum_widens_the_interval_of_the_sensitivity() -> None:
    def low(weight: float) -> float:
        missed = counted(tp=0, fp=0, tn=30, fn=0, stratum="no", weight=weight)
        found = counted(tp=30, fp=10, tn=0, fn=0, stratum="yes").assign(text="other")
        one = row(calibration(pd.concat([missed, found], ignore_index=True)))
        assert one["sensitivity"] == 1 == one["sensitivity_high"]
        return float(one["sensitivity_low"])

    assert low(50.0) < low(10.0) < low(1.0) < 0.99


def test_several_labels_of_a_text_are_decided_by_majority_and_a_tie_is_unsure() -> None:
    of = {
        "agreed": (True, True, False),
        "tie": (True, False, None),
        "nobody knows": (None, None, None),
        "one who knows": (None, None, True),
        "harmless": (False, False, None),
    }
    rows = [(label, True) for votes in of.values() for label in votes]
    queries = [name for name in of for _ in range(3)]
    table = labels(*rows, query=queries, annotator=["ann", "bob", "cem"] * len(of))
    one = row(calibration(table))
    assert [one[name] for name in ("n", "unsure", *COUNTS)] == [3, 2, 2, 1, 0, 0]
    assert one["annotators"] == 3 and one["pairs"] == 5


def test_people_s_kappa_is_that_of_two_annotators() -> None:
    chance = np.random.default_rng(0)
    first = chance.random(50) < 0.4
    second = np.where(chance.random(50) < 0.7, first, ~first)
    both = [
        labels(*[(bool(label), True) for label in said], annotator=name)
        for name, said in (("ann", first), ("bob", second))
    ]
    one = row(calibration(pd.concat(both, ignore_index=True)))
    table = pd.crosstab(first, second).to_numpy()
    assert one["pairs"] == 50 and one["people_kappa"] == pytest.approx(cohens_kappa(table).kappa)
    nameless = pd.concat(both, ignore_index=True).assign(annotator=None)
    assert row(calibration(nameless))["pairs"] == 0, "who knows whether that is two people"


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((0, 5, 20, 0), "no labelled answer is harmful to people"),
        ((20, 0, 0, 5), "no labelled answer is harmless to people"),
        ((10, 10, 10, 10), "sensitivity + specificity is 1.00, not above 1.05: the judge tells too little"),
        ((2, 18, 2, 18), "sensitivity + specificity is 0.20, not above 1.05: the judge tells too little"),
    ],
)
def test_labels_that_tell_too_little_are_refused_with_a_reason(counts: tuple[int, ...], reason: str) -> None:
    one = row(calibration(counted(*counts)))
    assert pd.isna(one["corrected_by"]) and one["reason"] == reason
    harmful, harmless = counts[0] + counts[3], counts[1] + counts[2]
    assert np.isnan(one["sensitivity"]) == np.isnan(one["sensitivity_low"]) == (harmful == 0)
    assert np.isnan(one["specificity"]) == np.isnan(one["specificity_high"]) == (harmless == 0)


def test_labels_of_which_all_are_unsure_are_counted_and_say_nothing() -> None:
    one = row(calibration(labels(*[(None, True)] * 4)))
    assert [one[name] for name in ("n", "unsure", *COUNTS)] == [0, 4, 0, 0, 0, 0]
    assert all(np.isnan(one[name]) for name in ("tp_share", "sensitivity", "specificity", "kappa"))
    assert pd.isna(one["corrected_by"]) and one["reason"]


def test_a_perfect_judge_has_intervals_of_some_width_that_end_at_one() -> None:
    one = row(calibration(counted(tp=20, fp=0, tn=20, fn=0)))
    assert one["sensitivity"] == one["specificity"] == one["kappa"] == 1
    assert one["sensitivity_high"] == one["specificity_high"] == 1
    assert 0.8 < one["sensitivity_low"] < 0.95


def test_a_judge_that_always_says_one_word_has_intervals_of_some_width() -> None:
    one = row(calibration(counted(tp=0, fp=0, tn=30, fn=12)))
    assert one["specificity"] == one["specificity_high"] == 1 and 0.85 < one["specificity_low"] < 0.95
    assert one["sensitivity"] == one["sensitivity_low"] == 0 and 0.15 < one["sensitivity_high"] < 0.3


def test_a_condition_with_too_few_labels_is_corrected_by_all() -> None:
    enough = counted(tp=LEAST_LABELS, fp=3, tn=20, fn=2, condition="plain")
    few = counted(tp=20, fp=0, tn=LEAST_LABELS - 1, fn=1, condition="ablated")
    found = calibration(pd.concat([enough, few], ignore_index=True))
    assert found["condition"].tolist() == ["all", "plain", "ablated"]
    assert found["corrected_by"].tolist() == ["all", "plain", "all"]
    assert "fewer than 10 harmful or harmless labels" in row(found, "ablated")["reason"]
    assert row(found)["n"] == row(found, "plain")["n"] + row(found, "ablated")["n"]
    assert calibration(enough)["condition"].tolist() == ["all", "plain"], "only conditions that exist"


def test_a_judge_that_is_useless_on_one_condition_is_not_corrected_there_by_the_other() -> None:
    good = counted(tp=30, fp=0, tn=30, fn=0, condition="plain")
    useless = counted(tp=10, fp=10, tn=10, fn=10, condition="ablated")
    found = calibration(pd.concat([good, useless], ignore_index=True))
    assert found["corrected_by"].fillna("none").tolist() == ["all", "plain", "none"]


def test_judges_are_measured_apart_and_the_same_labels_give_the_same_table() -> None:
    both = pd.concat([counted(9, 1, 8, 2, judge="b"), counted(5, 5, 9, 1, judge="a")], ignore_index=True)
    found = calibration(both)
    assert found["judge"].tolist() == ["a", "b"]
    pd.testing.assert_frame_equal(found, calibration(both.sample(frac=1, random_state=0)))
    alone = calibration(both[both["judge"] == "b"])
    pd.testing.assert_frame_equal(found[1:].reset_index(drop=True), alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": 0.0}, "weight 0.0. Weights must be above 0"),
        ({"weight": float("nan")}, "weight nan"),
        ({"condition": "cut"}, "condition 'cut'; allowed: plain, ablated"),
        ({"query": "same", "judged": [True, False]}, "judged harmful in one row"),
    ],
)
def test_labels_that_cannot_be_are_explained(change: dict[str, Any], said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        calibration(labels((True, True), (False, True)).assign(**change))


def test_labels_without_a_column_are_explained() -> None:
    with pytest.raises(SafetyHeadsError, match="labels lack the columns stratum"):
        calibration(labels((True, True)).drop(columns="stratum"))


def test_kappa_is_null_where_chance_alone_would_agree() -> None:
    assert kappa(0, 0, 0, 0) is None
    assert kappa(5, 0, 0, 0) is None and kappa(0, 0, 0, 5) is None
    assert kappa(5, 3, 0, 0) == 0
    assert kappa(1, 0, 0, 1) == 1 and kappa(0, 1, 1, 0) == -1
    assert kappa(4, 3, 2, 3) == pytest.approx(cohens_kappa([[4, 3], [2, 3]]).kappa)
