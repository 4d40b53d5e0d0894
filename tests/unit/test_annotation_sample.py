"""The sample that people label: every stratum has its share, weights stand for all answers, draws are repeatable."""

from itertools import product
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.errors import SafetyHeadsError
from safetyheads.statistics.annotation_sample import LEAST, OF_COMPLETIONS, STRATUM, UNIT, answers, draw, shares

KEYS = {"model": "m", "dataset": "d", "template": "t"}


def units(sizes: dict[tuple[str, bool, str], int]) -> pd.DataFrame:
    """So many units of each stratum, each with a text of its own."""
    rows = [
        {**KEYS, "condition": condition, "query": f"q{at % 3}", "text": f"{condition} {disagree} {outcome} {at}"}
        | {"disagree": disagree, "outcome": outcome}
        for (condition, disagree, outcome), size in sizes.items()
        for at in range(size)
    ]
    return pd.DataFrame(rows)


MANY = units(
    {
        ("plain", False, "refused"): 400,
        ("plain", True, "refused"): 5,
        ("plain", False, "complied"): 1,
        ("ablated", False, "refused"): 900,
        ("ablated", True, "complied"): 40,
        ("ablated", False, "degenerate"): 2,
    }
)


def completions(texts: list[str], ablation: str = "scaling", plan: str = "single", **more: Any) -> pd.DataFrame:
    rows = [
        {**KEYS, "ablation": ablation, "query_id": f"d-{at % 2}", "variant": plan, "sample": at, "text": text}
        for at, text in enumerate(texts)
    ]
    return pd.DataFrame(rows).assign(**more)[OF_COMPLETIONS]


def verdicts(made: pd.DataFrame, **judges: tuple[list[bool], list[str]]) -> pd.DataFrame:
    tables = [
        made[["query_id", "variant", "sample"]].assign(judge=judge, harmful=harmful, outcome=outcome)
        for judge, (harmful, outcome) in judges.items()
    ]
    return pd.concat(tables)


QUERIES = {"d-0": "How?", "d-1": "Why?"}


def test_an_answer_counts_once_for_each_query_and_condition() -> None:
    made = completions(["No.", "No.", "No.", "Yes."])
    judged = verdicts(made, b=([False] * 3 + [True], ["refused"] * 3 + ["complied"]))
    found = answers(made, judged, QUERIES)
    assert found[["query", "text"]].to_numpy().tolist() == [["How?", "No."], ["Why?", "No."], ["Why?", "Yes."]]
    assert set(found["condition"]) == {"ablated"}
    assert not found["disagree"].any()


def test_the_plain_model_is_also_what_it_says_in_the_batches_of_a_plan() -> None:
    made = completions(["a", "b", "c", "d"], variant=["plain", "plain-1", "L00H01", "plainly"])
    judged = verdicts(made, b=([False] * 4, ["other"] * 4))
    assert answers(made, judged, QUERIES)["condition"].tolist() == ["plain", "plain", "ablated", "ablated"]
    own = completions(["a"], ablation="plain", plan="none")
    assert answers(own, verdicts(own, b=([False], ["other"])), QUERIES)["condition"].tolist() == ["plain"]


def test_judges_disagree_on_harm_and_the_outcome_is_that_of_the_first_by_name() -> None:
    made = completions(["a", "b", ""])
    judged = verdicts(
        made,
        second=([True, False, False], ["complied", "short", "short"]),
        first=([False, False, False], ["refused", "refused", "short"]),
    )
    found = answers(made, judged, QUERIES)
    assert found["disagree"].tolist() == [True, False, False]
    assert found["outcome"].tolist() == ["refused", "refused", "short"]
    assert found["text"].tolist() == ["a", "b", ""], "an empty text is an answer, too"


def test_weights_sum_to_the_number_of_units_in_all_and_in_each_stratum() -> None:
    sample = draw(MANY, 60, 0)
    assert len(sample) == 60
    assert sample["weight"].sum() == pytest.approx(len(MANY))
    drawn = sample.merge(MANY, on=UNIT)
    for stratum, rows in drawn.groupby(STRATUM):
        size = len(MANY[(MANY[STRATUM] == list(stratum)).all(axis=1)])
        assert rows["weight"].sum() == pytest.approx(size)
        assert len(rows) >= min(size, LEAST)
        assert rows["stratum"].nunique() == 1
    assert sample["stratum"].nunique() == 6


def test_large_strata_get_more_by_the_square_root_of_their_size() -> None:
    found = shares(pd.Series([10_000, 2_500, 100]), 160)
    assert found.tolist() == [100, 50, 10]


@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=24), size=st.integers(1, 400))
def test_shares_are_within_their_bounds_and_grow_with_the_size(sizes: list[int], size: int) -> None:
    strata = pd.Series(sizes)
    try:
        found = shares(strata, size)
    except SafetyHeadsError:
        assert size < strata.clip(upper=LEAST).sum()
        return
    assert found.sum() == min(size, sum(sizes))
    assert (found <= strata).all()
    assert (found >= strata.clip(upper=LEAST)).all()
    assert (shares(strata, size + 1) >= found).all()


def test_the_draw_does_not_depend_on_the_order_of_rows_but_on_the_seed() -> None:
    first = draw(MANY, 60, 7)
    pd.testing.assert_frame_equal(draw(MANY.sample(frac=1, random_state=1), 60, 7), first)
    pd.testing.assert_frame_equal(draw(pd.concat([MANY, MANY.head(300)]), 60, 7), first)
    other = draw(MANY, 60, 8)
    assert set(other["id"]) != set(first["id"])
    assert (
        other.groupby("stratum").size().sort_values().tolist() == first.groupby("stratum").size().sort_values().tolist()
    )


def test_a_larger_sample_keeps_what_a_smaller_one_drew() -> None:
    assert set(draw(MANY, 60, 7)["id"]) < set(draw(MANY, 90, 7)["id"])


def test_all_units_are_drawn_where_there_are_fewer_than_asked_for() -> None:
    sample = draw(MANY, 5_000, 0)
    assert len(sample) == len(MANY)
    assert (sample["weight"] == 1).all()


def test_a_unit_that_was_judged_in_two_ways_is_one_on_which_judges_disagree() -> None:
    one = units({("plain", False, "refused"): 3})
    both = pd.concat([one, one.head(1).assign(outcome="complied")])
    for table in (both, both.iloc[::-1]):
        sample = draw(table, 10, 0)
        assert len(sample) == 3
        assert sample.groupby("stratum").size().tolist() in ([1, 2], [2, 1])


def test_neither_order_nor_code_tells_the_stratum() -> None:
    codes, firsts = set(), set()
    for seed in range(12):
        sample = draw(MANY, 60, seed).merge(MANY, on=UNIT)
        rare = sample[sample["outcome"] == "degenerate"]
        codes.add(rare["stratum"].iloc[0])
        firsts.add(sample["condition"].iloc[0])
        assert not sample["condition"].is_monotonic_decreasing
    assert len(codes) > 2
    assert firsts == {"plain", "ablated"}


def test_places_of_densely_and_sparsely_drawn_strata_are_alike() -> None:
    places = []
    for seed in range(40):
        sample = draw(MANY, 60, seed).merge(MANY, on=UNIT)
        places += sample.index[sample["outcome"] == "degenerate"].tolist()
    assert 22 < sum(places) / len(places) < 37, "the mean place of 80 rows, 29.5 by chance, with a deviation of 2"


def test_every_sampled_unit_is_one_of_those_given_and_has_an_id_of_its_own() -> None:
    sample = draw(MANY, 200, 0)
    assert len(sample.merge(MANY, on=UNIT)) == 200
    assert sample["id"].is_unique
    assert sample["id"].str.fullmatch("a[0-9a-f]{15}").all()


def test_a_size_that_does_not_suffice_says_what_would() -> None:
    with pytest.raises(SafetyHeadsError, match=r"found 5; .* 6 strata .*allowed: 11 or more"):
        draw(MANY, 5, 0)
    with pytest.raises(SafetyHeadsError, match="Run a study first"):
        draw(MANY.head(0), 5, 0)


def test_a_weighted_share_is_that_of_all_units() -> None:
    """Mean over many seeds: the sample tells the share of a trait that is spread unevenly over strata."""
    traits = [sum(map(ord, text)) % 3 == 0 for text in MANY["text"]]
    marked = MANY.assign(trait=traits)
    estimates = []
    for seed in range(60):
        sample = draw(MANY, 100, seed).merge(marked, on=UNIT)
        estimates.append((sample["trait"] * sample["weight"]).sum() / sample["weight"].sum())
    assert sum(estimates) / 60 == pytest.approx(marked["trait"].mean(), abs=0.03)


def test_texts_that_look_alike_stay_apart() -> None:
    texts = ["1", "1.0", " 1", "1 ", "", "NA", "nan", "null", "e\u0301", "\u00e9"]
    table = pd.DataFrame(
        [
            {**KEYS, "condition": condition, "query": "q", "text": text, "disagree": False, "outcome": "short"}
            for condition, text in product(("plain", "ablated"), texts)
        ]
    )
    assert len(draw(table, 100, 0)) == 20
