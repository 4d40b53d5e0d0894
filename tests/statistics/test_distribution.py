"""The distribution of scores over heads, held against distributions that are known."""

import numpy as np
import pytest

from safetyheads.statistics.distribution import cumulative, density, tail


@pytest.mark.parametrize("index", [0.8, 1.5, 3.0])
def test_the_tail_of_a_pareto_distribution_is_its_own(index: float) -> None:
    chance = np.random.default_rng(0)
    found = [tail(chance.pareto(index, 1024) + 1) for _ in range(400)]
    assert np.mean([one.exponent for one in found]) == pytest.approx(index, rel=0.03)
    assert np.mean([one.low <= index <= one.high for one in found]) == pytest.approx(0.95, abs=0.03)


def test_hills_estimator_by_hand() -> None:
    found = tail([1, 2, 4, 8, 16, *[0.5] * 15], share=0.1)
    assert found.heads == 2 and found.exponent == pytest.approx(1 / (np.log([16 / 4, 8 / 4]).mean()))


def test_a_long_tail_has_a_lower_index_than_a_short_one() -> None:
    chance = np.random.default_rng(1)
    assert tail(chance.pareto(1, 1000)).exponent < tail(chance.uniform(1, 2, 1000)).exponent


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 1.0, 1.0, 1.0], [0.0] * 40 + [1.0, 2.0]])
def test_there_is_no_tail_where_nothing_differs_or_is_above_0(scores: list[float]) -> None:
    assert np.isnan(tail(scores).exponent)


def test_the_cumulative_distribution_is_the_share_of_heads_that_score_no_more() -> None:
    values, share = cumulative([3.0, 1.0, 1.0, 2.0])
    assert values.tolist() == [1, 1, 2, 3] and share.tolist() == [0.5, 0.5, 0.75, 1]


def test_the_density_is_one_head_over_all_factors_of_ten() -> None:
    at, height = density(np.random.default_rng(2).lognormal(-3, 2, 500))
    assert np.trapezoid(height, np.log10(at)) == pytest.approx(1, abs=0.01)
    assert at[height.argmax()] == pytest.approx(np.exp(-3), rel=0.4)


@pytest.mark.parametrize("scores", [[], [0.0, 0.0], [2.0, 2.0]])
def test_there_is_no_density_where_no_scores_differ(scores: list[float]) -> None:
    at, height = density(scores)
    assert len(at) == len(height) == 0
