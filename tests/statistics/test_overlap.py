"""Overlap of rankings, held against enumerations and simulations."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.errors import SafetyHeadsError
from safetyheads.statistics.overlap import (
    chance_of_shared,
    expected_jaccard,
    expected_overlap,
    jaccard,
    rank_biased_overlap,
    ranking,
)

permutations = st.integers(1, 30).flatmap(lambda n: st.tuples(*[st.permutations(range(n))] * 2))


def test_heads_of_equal_score_rank_as_plans_choose_them() -> None:
    assert ranking([0.1, 0.5, 0.5, 0.9]).tolist() == [3, 1, 2, 0]


def test_the_jaccard_index_is_shared_over_all() -> None:
    assert jaccard([1, 2, 3], [3, 4, 5]) == 1 / 5
    assert jaccard([1, 2], [2, 1]) == 1


def test_chance_is_that_of_all_pairs_of_sets() -> None:
    sets = list(combinations(range(6), 2))
    found = [jaccard(one, other) for one in sets for other in sets]
    assert expected_jaccard(2, 6) == pytest.approx(np.mean(found))
    shared = [len({*one} & {*other}) for one in sets for other in sets]
    for n in (0, 1, 2):
        assert chance_of_shared(n, 2, 6) == pytest.approx(np.mean([count >= n for count in shared]))


def test_rank_biased_overlap_by_hand() -> None:
    # Agreement at depths 1, 2, 3: 0, 1, 1.
    assert rank_biased_overlap([0, 1, 2], [1, 0, 2], 0.5) == pytest.approx(0.5 * (0 + 0.5 + 0.25) + 0.5**3)


@given(permutations)
def test_rank_biased_overlap_is_the_weighted_share_in_common(pair: tuple[list[int], list[int]]) -> None:
    one, other = pair
    n, p = len(one), 0.9
    shares = [len({*one[:d]} & {*other[:d]}) / d for d in range(1, n + 1)]
    expected = (1 - p) * sum(p**at * share for at, share in enumerate(shares)) + p**n
    assert rank_biased_overlap(one, other) == pytest.approx(expected)
    assert rank_biased_overlap(other, one) == pytest.approx(expected)
    assert rank_biased_overlap(one, one) == pytest.approx(1)


def test_the_expected_overlap_is_the_mean_over_random_orders() -> None:
    chance = np.random.default_rng(0)
    found = [rank_biased_overlap(chance.permutation(32), chance.permutation(32)) for _ in range(4000)]
    assert np.mean(found) == pytest.approx(expected_overlap(32), abs=4 * np.std(found) / 4000**0.5)


@pytest.mark.parametrize("other", [[0, 1], [0, 1, 3], [0, 1, 1]])
def test_rankings_of_other_heads_are_refused(other: list[int]) -> None:
    with pytest.raises(SafetyHeadsError, match="each once"):
        rank_biased_overlap([0, 1, 2], other)
