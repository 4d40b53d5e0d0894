"""Simulations: intervals hold the truth as often as they say, and the randomisation test errs as rarely as it says."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from safetyheads.chosen_heads import matched_draws
from safetyheads.heads import Head
from safetyheads.statistics.controls import over_control, randomisation_p
from safetyheads.statistics.intervals import difference_interval, rate_interval

PROMPTS = 100
ASRS = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
AGREE = (None, 4.0, 0.5)
"""How much the samples of a prompt agree: its rate is the ASR itself, or is drawn from a beta distribution of that
size, where less is more agreement."""


def rates_of(
    chance: np.random.Generator, asr: float, agree: float | None, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    return np.full(shape, asr) if agree is None else chance.beta(asr * agree, (1 - asr) * agree, shape)


def answered(chance: np.random.Generator, rates: NDArray[np.float64], samples: int) -> NDArray[np.float64]:
    return chance.binomial(samples, rates) / samples


def covered(bounds: Sequence[NDArray[np.float64]], truth: float) -> float:
    return float(((bounds[0] <= truth + 1e-12) & (truth - 1e-12 <= bounds[1])).mean())


@pytest.mark.parametrize("agree", AGREE)
@pytest.mark.parametrize("samples", [1, 3])
def test_intervals_of_rates_hold_the_truth(samples: int, agree: float | None) -> None:
    chance = np.random.default_rng(1)
    found = {}
    for asr in ASRS:
        values = answered(chance, rates_of(chance, asr, agree, (4000, PROMPTS)), samples)
        found[asr] = covered(rate_interval(values, samples), asr)
    assert all(0.92 <= share <= 0.985 for share in found.values()), found


def paired_coverage(samples: int, agree: float | None, studies: int, asrs: Sequence[float]) -> dict[object, float]:
    chance = np.random.default_rng(2)
    found: dict[object, float] = {}
    for plain in asrs:
        for ablated in asrs:
            before = answered(chance, rates_of(chance, plain, agree, (studies, PROMPTS)), samples)
            after = answered(chance, rates_of(chance, ablated, agree, (studies, PROMPTS)), samples)
            bounds = difference_interval(after - before, samples)
            found[plain, ablated] = covered(bounds, ablated - plain)
    return found


@pytest.mark.parametrize("agree", AGREE)
@pytest.mark.parametrize("samples", [1, 3])
def test_intervals_of_differences_hold_the_truth(samples: int, agree: float | None) -> None:
    found = paired_coverage(samples, agree, 2000, ASRS[::2])
    assert all(0.92 <= share <= 0.985 for share in found.values()), found


@pytest.mark.long
@pytest.mark.parametrize("agree", AGREE)
@pytest.mark.parametrize("samples", [1, 3])
def test_intervals_of_differences_hold_the_truth_at_every_pair_of_rates(samples: int, agree: float | None) -> None:
    found = paired_coverage(samples, agree, 10_000, ASRS)
    assert all(0.92 <= share <= 0.985 for share in found.values()), found


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kept", [0.5, 0.8])
def test_intervals_of_differences_hold_the_truth_where_most_answers_stay_as_they_were(
    samples: int, kept: float
) -> None:
    """Ablated and plain answers of a prompt are the same in so many cases, and drawn anew in the others."""
    chance = np.random.default_rng(3)
    for plain, ablated in ((0.3, 0.3), (0.1, 0.5), (0.5, 0.9), (0.9, 0.7)):
        before = chance.random((4000, PROMPTS, samples)) < plain
        anew = chance.random(before.shape) < ablated
        after = np.where(chance.random(before.shape) < kept, before, anew)
        bounds = difference_interval(after.mean(axis=-1) - before.mean(axis=-1), samples)
        assert 0.92 <= covered(bounds, (1 - kept) * (ablated - plain)) <= 0.985, (plain, ablated)


def over_control_coverage(asr: float, lift: float, layers: int, chosen: bool, samples: int, studies: int) -> float:
    """How often the interval holds the effect over all matched sets: one head of each layer, one of eight influential.

    Ablating an influential head makes the share `lift` of the answers that do not comply comply. `chosen` says whether
    the plan has the influential heads. The draws are 20, or all 7 where there is one layer.
    """
    chance, heads, n_draws = np.random.default_rng(4), 8, 20
    images = np.indices((heads,) * layers).reshape(layers, -1).T
    plan = np.zeros(layers, dtype=int) + (0 if chosen else 1)
    others = images[(images != plan).any(axis=1)]

    def rate(hit: NDArray[np.int64]) -> NDArray[np.float64]:
        return 1 - (1 - asr) * (1 - lift) ** hit

    truth = float(rate((plan == 0).sum()) - rate((others == 0).sum(axis=1)).mean())
    held = 0
    for _ in range(studies):
        draws = others[chance.permutation(len(others))[:n_draws]]
        own = answered(chance, np.full(PROMPTS, rate((plan == 0).sum())), samples)
        control = answered(chance, np.tile(rate((draws == 0).sum(axis=1)), (PROMPTS, 1)), samples)
        found = over_control(own, control)
        held += found.low - 1e-12 <= truth <= found.high + 1e-12
    return held / studies


DESIGNS = [(0.0, 1, False), (0.0, 2, False), (0.3, 2, True), (0.9, 1, False), (0.9, 1, True), (0.9, 2, False)]
"""Lift of the influential heads, layers, and whether the plan has the influential heads."""


@pytest.mark.parametrize("asr", [0.02, 0.5, 0.98])
@pytest.mark.parametrize(("lift", "layers", "chosen"), DESIGNS)
def test_intervals_over_control_hold_the_truth(asr: float, lift: float, layers: int, chosen: bool) -> None:
    assert over_control_coverage(asr, lift, layers, chosen, 1, 300) >= 0.91


@pytest.mark.long
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("asr", ASRS)
@pytest.mark.parametrize(("lift", "layers", "chosen"), [*DESIGNS, (0.9, 2, True), (0.3, 2, False)])
def test_intervals_over_control_hold_the_truth_at_every_rate(
    asr: float, lift: float, layers: int, chosen: bool, samples: int
) -> None:
    assert over_control_coverage(asr, lift, layers, chosen, samples, 2000) >= 0.91


def false_positives(shared: str, studies: int) -> float:
    """How often p <= 0.05 if the plan's heads were chosen by chance alone, among heads that do differ."""
    chance, layers, heads, prompts = np.random.default_rng(5), 2, 8, 24
    errors = 0
    for _ in range(studies):
        influence = chance.exponential(0.15, (layers, heads))  # some heads do much, most do little
        sets = chance.integers(0, heads, (prompts, layers))
        sets[:, :] = sets[:1] if shared == "all" else sets
        sets[: prompts // 2] = sets[:1] if shared == "half" else sets[: prompts // 2]
        plan = [tuple(Head(layer, int(head)) for layer, head in enumerate(heads_of)) for heads_of in sets]
        drawn = [plan, *matched_draws(plan, layers, heads, 20, int(chance.integers(2**31)))]
        places = np.array(
            [[[head.head for head in prompt] for prompt in draw] for draw in drawn]
        )  # (1 + D, prompts, 2)
        ease = chance.normal(0, 0.1, prompts)
        complied = chance.random(places.shape[:2]) < influence[np.arange(layers), places].sum(axis=-1) + ease
        means = complied.mean(axis=1)
        errors += randomisation_p(means[0], means[1:])[0] <= 0.05
    return errors / studies


@pytest.mark.parametrize("shared", ["all", "half", "none"])
def test_the_randomisation_test_errs_as_rarely_as_it_says(shared: str) -> None:
    assert 0.02 <= false_positives(shared, 2500) <= 0.055


@pytest.mark.long
@pytest.mark.parametrize("shared", ["all", "half", "none"])
def test_the_randomisation_test_errs_as_rarely_as_it_says_in_many_studies(shared: str) -> None:
    assert 0.02 <= false_positives(shared, 10_000) <= 0.055


def test_a_set_beyond_all_draws_has_the_smallest_p_value_and_one_among_them_a_large_one() -> None:
    draws = np.linspace(-0.1, 0.2, 20)
    assert randomisation_p(0.9, draws) == (1 / 21, 1 / 21)
    assert randomisation_p(-0.9, draws) == (1 / 21, 1 / 21)
    assert randomisation_p(0.0, draws)[0] == 1
    assert randomisation_p(0.5, np.full(7, 0.5)) == (1, 1 / 8)
    assert randomisation_p(0.1 + 0.2, [0.3] * 20)[0] == 1, "equal but for rounding"
