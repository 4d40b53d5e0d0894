"""Intervals of rates and of paired differences, and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from statsmodels.stats.multitest import multipletests

from safetyheads.statistics.controls import over_control
from safetyheads.statistics.intervals import Z, difference_interval, effective_n, rate_interval, tango, wilson
from safetyheads.statistics.significance import holm

SHARES = st.integers(1, 3).flatmap(
    lambda samples: st.lists(st.integers(0, samples).map(lambda count: count / samples), min_size=1, max_size=40).map(
        lambda values: (values, samples)
    )
)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_with_one_sample_a_rate_has_wilson_s_interval(values: list[bool]) -> None:
    low, high = rate_interval(values)
    assert (low, high) == pytest.approx(wilson(sum(values), len(values)))


def score(truth: float, more: int, less: int, n: int) -> float:
    """Standard errors between a difference and `truth`, where the share that changes down is the likeliest one."""

    def unlikely(down: float) -> float:
        cells = ((more, down + truth), (less, down), (n - more - less, 1 - 2 * down - truth))
        return -sum(count * np.log(max(share, 1e-300)) for count, share in cells if count)

    ends = (max(0.0, -truth), (1 - truth) / 2)
    down = minimize_scalar(unlikely, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    return float(((more - less) / n - truth) / np.sqrt((2 * down + truth - truth**2) / n))


@pytest.mark.parametrize(
    ("more", "less", "n"), [(10, 3, 100), (40, 5, 60), (1, 1, 20), (5, 0, 30), (0, 7, 12), (30, 30, 100), (2, 18, 25)]
)
def test_the_bounds_of_a_difference_are_z_standard_errors_away(more: int, less: int, n: int) -> None:
    low, high = difference_interval([1] * more + [-1] * less + [0] * (n - more - less))
    assert score(float(low), more, less, n) == pytest.approx(Z, rel=1e-4)
    assert score(float(high), more, less, n) == pytest.approx(-Z, rel=1e-4)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_prompts_that_all_do_the_same_have_the_interval_of_0_of_n(n: int) -> None:
    width = Z**2 / (n + Z**2)
    assert difference_interval(np.zeros(n)) == pytest.approx((-width, width))
    assert difference_interval(np.zeros(n), 5) == pytest.approx((-width, width))
    assert rate_interval(np.zeros(n), 5) == pytest.approx((0, width))
    assert rate_interval(np.ones(n), 5) == pytest.approx((1 - width, 1))
    assert difference_interval(np.ones(n))[1] == 1
    same = over_control(np.zeros(n), np.zeros((n, 20)))
    assert same == pytest.approx((0, -width, width))


@given(SHARES, SHARES)
def test_intervals_hold_their_estimate_lie_in_range_and_have_a_width(
    one: tuple[list[float], int], other: tuple[list[float], int]
) -> None:
    n, samples = min(len(one[0]), len(other[0])), max(one[1], other[1])
    ablated, plain = np.array(one[0][:n]), np.array(other[0][:n])
    for (low, high), estimate, least in (
        (rate_interval(ablated, samples), ablated.mean(), 0),
        (difference_interval(ablated - plain, samples), (ablated - plain).mean(), -1),
    ):
        assert least <= low <= estimate + 1e-9 and estimate - 1e-9 <= high <= 1
        assert low < high
    found = over_control(ablated, np.stack([plain, plain[::-1]], axis=1))
    assert found.low <= found.difference <= found.high and found.low < found.high


@given(SHARES)
def test_to_swap_up_and_down_mirrors_the_interval(values: tuple[list[float], int]) -> None:
    low, high = difference_interval(np.array(values[0]), values[1])
    assert difference_interval(-np.array(values[0]), values[1]) == pytest.approx((-high, -low), abs=1e-9)


def test_several_samples_count_as_between_one_and_that_many_prompts() -> None:
    chance = np.random.default_rng(0)
    apart = chance.binomial(3, 0.5, 2000) / 3
    together = chance.binomial(1, 0.5, 2000) / 1.0
    assert 2.7 < effective_n(apart, 0.25, 3) / 2000 <= 3
    assert effective_n(together, 0.25, 3) / 2000 == pytest.approx(1, abs=0.01)
    assert effective_n(np.full(50, 1 / 3), 2 / 9, 3) == 50


def test_many_studies_at_once_have_the_intervals_of_each() -> None:
    chance = np.random.default_rng(1)
    values = chance.integers(-2, 3, (7, 30)) / 2
    each = np.array([difference_interval(row, 2) for row in values]).T
    np.testing.assert_allclose(difference_interval(values, 2), each)
    assert np.shape(tango([1, 2], [0, 0], [9, 9])) == (2, 2)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
def test_holm_corrects_what_is_known_and_leaves_nulls(p_values: list[float], data: st.DataObject) -> None:
    null = np.array(data.draw(st.lists(st.booleans(), min_size=len(p_values), max_size=len(p_values))))
    given_p = np.where(null, np.nan, p_values)
    found = holm(given_p)
    assert (np.isnan(found) == null).all()
    if not null.all():
        np.testing.assert_allclose(found[~null], multipletests(given_p[~null], method="holm")[1])
