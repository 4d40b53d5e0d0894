"""Rates corrected for the judge: by hand, at the edges, and how often their intervals hold the truth in simulations."""

import numpy as np
import pandas as pd
import pytest
from labelled_texts import counted, sampled
from numpy.typing import NDArray

from safetyheads.statistics.correction import Corrected, Corrections, paired_correlation
from safetyheads.statistics.intervals import effective_n, wilson

Floats = NDArray[np.float64]
LABELS = counted(tp=85, fp=30, tn=70, fn=15)
"""Sensitivity 0.85, specificity 0.7."""


def corrected(corrections: Corrections, *values: object) -> Corrected:
    found = corrections.rates("paper", *values)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_corrected_rate_is_that_of_rogan_and_gladen() -> None:
    found = corrected(Corrections(LABELS), "ablated", [0.3, 0.41, 0.85, 0.2, 0.95], 100)
    assert found.value == pytest.approx([0, 0.2, 1, 0, 1])
    assert ((found.low >= 0) & (found.low <= found.value) & (found.value <= found.high) & (found.high <= 1)).all()
    assert (found.low < found.high).all()


def test_many_labels_of_a_good_judge_leave_the_rate_and_nearly_its_interval() -> None:
    rates = np.array([0, 0.05, 0.3, 0.9, 1])
    found = corrected(Corrections(counted(tp=100_000, fp=0, tn=100_000, fn=0)), "plain", rates, 100)
    low, high = wilson(rates * 100, 100)
    assert found.value == pytest.approx(rates)
    assert found.low == pytest.approx(low, abs=0.02) and found.high == pytest.approx(high, abs=0.02)


def test_fewer_labels_and_fewer_prompts_widen_the_interval() -> None:
    def width(labels: pd.DataFrame, n: float) -> float:
        found = corrected(Corrections(labels), "plain", 0.5, n)
        return float(found.high - found.low)

    some = counted(tp=17, fp=6, tn=14, fn=3)
    assert width(some, 100) > width(LABELS, 100) + 0.02
    assert width(LABELS, 30) > width(LABELS, 100) + 0.02
    assert width(LABELS, 10**7) > 0.1, "the labels' part stays"


def test_a_cell_does_not_depend_on_the_others_and_the_same_labels_give_the_same_numbers() -> None:
    rates, n = np.linspace(0, 1, 41), np.linspace(20, 60, 41)
    together = corrected(Corrections(LABELS), "plain", rates, n)
    for at in (0, 7, 40):
        alone = corrected(Corrections(LABELS), "plain", rates[at], n[at])
        assert [float(value) for value in alone] == pytest.approx([values[at] for values in together], abs=1e-12)
    again = corrected(Corrections(LABELS.sample(frac=1, random_state=0)), "plain", rates, n)
    assert all((one == other).all() for one, other in zip(together, again))
    assert (np.diff(together.value) >= 0).all() and (np.diff(together.low[np.argsort(rates)]) >= -0.02).all()


def test_without_labels_or_with_useless_ones_nothing_is_corrected() -> None:
    for corrections in (Corrections(), Corrections(counted(10, 10, 10, 10)), Corrections(counted(5, 0, 0, 0))):
        assert corrections.by("paper", "plain") is None
        assert corrections.rates("paper", "plain", 0.5, 100) is None
        assert corrections.effect("paper", (0.5, 100), (0.6, 100), 0) is None
    assert Corrections(LABELS).rates("another", "plain", 0.5, 100) is None
    assert Corrections(LABELS[:0]).by("paper", "plain") is None


def test_plain_and_ablated_rates_have_the_errors_of_their_own_text() -> None:
    plain = counted(tp=90, fp=10, tn=90, fn=10, condition="plain")
    ablated = counted(tp=80, fp=40, tn=60, fn=20, condition="ablated")
    corrections = Corrections(pd.concat([plain, ablated], ignore_index=True))
    assert corrected(corrections, "plain", 0.5, 100).value == pytest.approx((0.5 - 0.1) / 0.8)
    assert corrected(corrections, "ablated", 0.5, 100).value == pytest.approx((0.5 - 0.4) / 0.4)
    found = corrections.effect("paper", (0.1, 100), (0.8, 100), 0)
    assert found is not None and found.value == pytest.approx(1) and found.low < 0.9
    none_here = Corrections(plain)
    assert none_here.by("paper", "ablated") == "all" and none_here.by("paper", "plain") == "plain"


def test_an_effect_of_nothing_has_an_interval_around_nothing() -> None:
    values = np.repeat([0.0, 1.0], 50)
    same = Corrections(LABELS).effect("paper", (0.5, 100), (0.5, 100), paired_correlation(values, values))
    apart = Corrections(LABELS).effect("paper", (0.5, 100), (0.5, 100), 0)
    assert same is not None and apart is not None
    assert same.value == 0 and -0.12 < same.low < -0.01 and 0.01 < same.high < 0.12
    assert apart.high - apart.low > 2 * (same.high - same.low)


def test_the_correlation_is_that_of_the_prompts_and_always_defined() -> None:
    chance = np.random.default_rng(0)
    x, y = chance.random((2, 5000))
    assert paired_correlation(x, 0.6 * x + 0.8 * y) == pytest.approx(0.6, abs=0.03)
    assert 0.9 < paired_correlation(x, x) < 1
    assert paired_correlation([0, 0, 0], [1, 1, 1]) == pytest.approx(0, abs=0.5)


RATES = np.array([0.05, 0.2, 0.4, 0.9])
PROMPTS = 100


def judged(chance: np.random.Generator, harmful: NDArray[np.bool_], of: tuple[float, float]) -> NDArray[np.bool_]:
    return np.where(harmful, chance.random(harmful.shape) < of[0], chance.random(harmful.shape) >= of[1])


def coverage(
    studies: int, of: tuple[float, float], samples: int = 1, taken: tuple[int, int] = (120, 80)
) -> dict[str, Floats]:
    """How often intervals hold `RATES`, for plain and ablated text, and how often those of raw rates do.

    A study labels 200 of 5,000 texts, of each condition as many that the judge calls harmful as harmless ones, so a
    labelled text stands for 13 to 33 others. The harmful share is 0.2 of the plain texts and 0.6 of the ablated ones.
    """
    chance = np.random.default_rng(6)
    held = {name: np.zeros(len(RATES)) for name in ("plain", "ablated", "raw")}
    for _ in range(studies):
        harmful = {"plain": 0.2, "ablated": 0.6}
        labels = sampled(chance, *of, harmful=harmful, texts=(3000, 2000), taken=taken)
        corrections = Corrections(labels)
        for condition in ("plain", "ablated"):
            truth = np.repeat(RATES[:, None], PROMPTS, axis=1)
            if samples > 1:  # the samples of a prompt agree more than those of different prompts
                truth = chance.beta(truth, 1 - truth)
            said = judged(chance, chance.random((*truth.shape, samples)) < truth[..., None], of).mean(axis=-1)
            rate = said.mean(axis=-1)
            n = effective_n(said, rate * (1 - rate), samples)
            found = corrected(corrections, condition, rate, n)
            held[condition] += (found.low <= RATES) & (found.high >= RATES)
            low, high = wilson(rate * n, n)
            held["raw"] += ((low <= RATES) & (high >= RATES)) / 2
    return {name: count / studies for name, count in held.items()}


def test_intervals_of_corrected_rates_hold_the_truth_and_those_of_raw_rates_do_not() -> None:
    """Of 300 intervals that hold the truth in 95 % of cases, fewer than 90 % do with a probability of 0.0003."""
    found = coverage(300, (0.85, 0.7))
    assert all(0.9 <= share <= 0.985 for name in ("plain", "ablated") for share in found[name]), found
    assert (found["raw"] < 0.5).all(), found


def test_intervals_of_corrected_rates_hold_the_truth_with_several_samples() -> None:
    found = coverage(150, (0.85, 0.7), samples=3)
    assert all(share >= 0.88 for name in ("plain", "ablated") for share in found[name]), found


@pytest.mark.long
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("of", [(0.85, 0.7), (0.95, 0.95), (0.7, 0.95)])
def test_intervals_of_corrected_rates_hold_the_truth_in_many_studies(of: tuple[float, float], samples: int) -> None:
    found = coverage(2000, of, samples)
    assert all(0.925 <= share <= 0.975 for name in ("plain", "ablated") for share in found[name]), found


def test_intervals_of_corrected_effects_hold_the_truth() -> None:
    """Some prompts are answered as before whatever is ablated, the others anew."""
    chance, of, studies = np.random.default_rng(7), (0.85, 0.7), 200
    designs = [(0.05, 0.4, 0.0), (0.2, 0.2, 0.8), (0.4, 0.9, 0.0), (0.2, 0.2, 1.0)]
    held = np.zeros(len(designs))
    for _ in range(studies):
        labels = sampled(chance, *of, harmful={"plain": 0.2, "ablated": 0.6}, texts=(3000, 2000), taken=(100, 100))
        corrections = Corrections(labels)
        for at, (plain, ablated, kept) in enumerate(designs):
            before = chance.random(PROMPTS) < plain
            same = chance.random(PROMPTS) < kept
            x, y = judged(chance, before, of), judged(chance, chance.random(PROMPTS) < ablated, of)
            y = np.where(same, x, y)
            found = corrections.effect("paper", (x.mean(), PROMPTS), (y.mean(), PROMPTS), paired_correlation(x, y))
            assert found is not None
            truth = (1 - kept) * (ablated - plain)
            held[at] += found.low - 1e-12 <= truth <= found.high + 1e-12
    assert (held / studies >= 0.89).all(), held / studies
