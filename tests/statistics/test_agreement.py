"""Judges beside each other: every answer counts once for each pair, by what became of it."""

import numpy as np
import pandas as pd
import pytest
from made_up_study import study

from safetyheads.errors import SafetyHeadsError
from safetyheads.statistics.agreement import COLUMNS, COUNTS, OF_VERDICTS, agreement
from safetyheads.statistics.pairs import PLAN_KEYS

CELL = {"model": "m", "ablation": "scaling"}


def verdicts(harmful: list[bool], outcomes: list[str] | None = None, **keys: str) -> pd.DataFrame:
    rows = {"variant": "mine", "query_id": [f"d-{at:04d}" for at in range(len(harmful))], "sample": 0}
    told = outcomes or ["complied" if said else "refused" for said in harmful]
    return pd.DataFrame({**rows, **CELL, "harmful": harmful, "outcome": told} | keys)[OF_VERDICTS]


def test_counts_and_kappa_are_those_worked_out_by_hand() -> None:
    one = verdicts([True] * 6 + [False] * 4, ["complied"] * 5 + ["degenerate"] + ["refused"] * 4)
    other = verdicts([True] * 4 + [False] * 5 + [True])
    found = agreement([{"b": other, "a": one}])
    assert list(found) == COLUMNS
    assert found["outcome"].tolist() == ["all", "complied", "degenerate", "refused"]
    assert found[["first", "second", "model", "condition"]].drop_duplicates().values.tolist() == [
        ["a", "b", "m", "ablated"]
    ]
    table = found.set_index("outcome")
    assert table.loc["all", list(COUNTS)].tolist() == [4, 2, 1, 3]
    assert table.loc["complied", list(COUNTS)].tolist() == [4, 1, 0, 0]
    assert table.loc["degenerate", list(COUNTS)].tolist() == [0, 1, 0, 0]
    assert table.loc["refused", list(COUNTS)].tolist() == [0, 0, 1, 3]
    assert table["n"].tolist() == [10, 5, 1, 4]
    assert table.loc["all", "agreement"] == pytest.approx(0.7)
    # By chance 0.6 * 0.5 + 0.4 * 0.5 = 0.5.
    assert table.loc["all", "kappa"] == pytest.approx(0.4)
    assert table.loc["degenerate", "kappa"] == 0 and table.loc["refused", "kappa"] == 0


def test_judges_that_always_say_the_same_word_have_no_kappa() -> None:
    found = agreement([{"a": verdicts([True] * 3), "b": verdicts([True] * 3)}])
    assert found["agreement"].tolist() == [1, 1] and found["kappa"].isna().all()


def test_rows_are_matched_by_what_they_are_about_and_not_by_their_place() -> None:
    one, other = verdicts([True, False, True, False]), verdicts([True, False, True, True])
    pd.testing.assert_frame_equal(
        agreement([{"a": one, "b": other}]), agreement([{"a": one, "b": other.sample(frac=1, random_state=1)}])
    )
    missing = agreement([{"a": one, "b": other.iloc[:2]}]).set_index("outcome")
    assert missing.loc["all", "n"] == 2, "only answers that both judged count"


def test_plain_rows_within_batches_repeat_the_plain_model_and_do_not_count() -> None:
    batch = pd.concat([verdicts([True, False]), verdicts([True, True], variant="plain-1")], ignore_index=True)
    plain = verdicts([False, False], ablation="plain", variant="none")
    found = agreement([{"a": batch, "b": batch}, {"a": plain, "b": plain}])
    of_all = found[found["outcome"] == "all"].set_index("condition")
    assert of_all["n"].to_dict() == {"ablated": 2, "plain": 2}


def test_cells_of_one_judge_say_nothing_and_three_judges_make_three_pairs() -> None:
    alone = agreement([{"a": verdicts([True])}])
    assert alone.empty and list(alone) == COLUMNS
    three = agreement([{name: verdicts([True, False]) for name in "cab"}])
    assert sorted(set(zip(three["first"], three["second"]))) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_a_study_s_counts_are_those_of_a_plain_join() -> None:
    table = study().verdicts
    cells = table.groupby([key for key in PLAN_KEYS if key != "judge"], sort=False)
    found = agreement({str(name): rows for name, rows in cell.groupby("judge")} for _, cell in cells)
    own = table[~((table["ablation"] != "plain") & table["variant"].str.startswith("plain"))]
    keys = [*(key for key in PLAN_KEYS if key != "judge"), "variant", "query_id", "sample"]
    wide = own.pivot(index=keys, columns="judge", values="harmful").reset_index()
    for condition, rows in wide.groupby(np.where(wide["ablation"] == "plain", "plain", "ablated")):
        line = found[(found["condition"] == condition) & (found["outcome"] == "all")].iloc[0]
        first, second = rows["harm"].astype(bool), rows["refusals"].astype(bool)
        expected = [(first & second).sum(), (first & ~second).sum(), (~first & second).sum(), (~first & ~second).sum()]
        assert [line[name] for name in COUNTS] == expected
        parts = found[(found["condition"] == condition) & (found["outcome"] != "all")]
        assert parts[list(COUNTS)].sum().tolist() == expected


def test_verdicts_without_a_column_are_explained() -> None:
    with pytest.raises(SafetyHeadsError, match="verdicts of b lack the columns outcome"):
        agreement([{"a": verdicts([True]), "b": verdicts([True]).drop(columns="outcome")}])
