"""The noise between batches: how often the plain model answers differently in another batch."""

import pandas as pd
import pytest
from made_up_study import cell, study

from safetyheads.statistics.leaks import normal
from safetyheads.statistics.noise import COLUMNS, noise

STUDY = study()


def by_hand(table: pd.DataFrame, of: list[str]) -> float:
    plain = {
        (r.dataset, r.query_id, r.sample): [getattr(r, n) for n in of] for r in cell(table, plan="none").itertuples()
    }
    own = {
        (r.dataset, r.plan, r.variant, r.query_id, r.sample): [getattr(r, n) for n in of] for r in table.itertuples()
    }
    differ = [
        own[r.dataset, r.plan, r.paired, r.query_id, r.sample] != plain[r.dataset, r.query_id, r.sample]
        for r in table.itertuples()
        if isinstance(r.paired, str)
    ]
    return sum(differ) / len(differ)


def test_the_noise_is_what_is_counted_row_by_row() -> None:
    found = noise(STUDY.verdicts, STUDY.completions)
    assert list(found) == COLUMNS
    assert found["judge"].tolist() == ["harm", "refusals"]
    assert found["n"].tolist() == [12, 12]
    for row in found.itertuples():
        assert row.texts == pytest.approx(by_hand(STUDY.completions, ["text"]))
        judged = cell(STUDY.verdicts, judge=row.judge)
        assert row.verdicts == pytest.approx(by_hand(judged, ["harmful", "outcome"]))
        assert 0 < row.verdicts < 1


def test_there_is_no_noise_where_all_plain_rows_agree() -> None:
    plain = (STUDY.verdicts["plan"] == "none") | STUDY.verdicts["variant"].str.startswith("plain")
    verdicts = STUDY.verdicts.assign(harmful=~plain, outcome=STUDY.verdicts["outcome"].mask(plain, "refused"))
    found = noise(verdicts, STUDY.completions.assign(text="the same"))
    assert found["texts"].tolist() == found["verdicts"].tolist() == [0, 0]


def test_a_study_without_plain_rows_in_its_batches_has_no_rows_of_noise() -> None:
    plans = ["none", "mine", "ships-2"]
    tables = [table[table["plan"].isin(plans)] for table in (STUDY.verdicts, STUDY.completions)]
    assert list(noise(*tables)) == COLUMNS and len(noise(*tables)) == 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do kites fly?", "how do  KITES fly"),
        ("It's a “test”…", "its a 'test'"),
        ("caf\u00e9", "cafe\u0301"),
        ("Wie heißt das?", "WIE HEISST DAS"),
        ("風はなぜ吹く?", "風はなぜ吹く\uff1f"),
        ("a\u200bb", "ab"),
        ("\uff21\uff22", "ab"),
        ("co-operate", "cooperate"),
    ],
)
def test_queries_that_differ_in_case_spaces_and_punctuation_are_equal(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"), [("kites", "kite"), ("C++", "C"), ("कि", "की"), ("2 + 2", "2 2"), ("?!", "..."), ("für", "fur")]
)
def test_queries_of_other_words_stay_apart(one: str, other: str) -> None:
    assert normal(one) != normal(other)
