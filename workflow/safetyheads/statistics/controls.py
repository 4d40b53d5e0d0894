"""A set of heads against its control: other sets of as many heads of the same layers, on the same prompts.

Ablating any heads can do something. So an effect belongs to a set of heads only as far as it goes beyond what its
control draws (`plans.matched`) do.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from safetyheads.statistics.intervals import TAIL, difference_interval
from safetyheads.statistics.resampling import resampled
from safetyheads.statistics.significance import SAME


class Interval(NamedTuple):
    """A difference and the bounds of its interval."""

    difference: float
    low: float
    high: float


def randomisation_p(effect: float, draws: ArrayLike) -> tuple[float, float]:
    """The p-value of an effect among those of its control draws, and the smallest that so many draws can give.

    `draws` (D,) are the effects of the draws. The p-value is (1 + how many are at least as far from 0) / (1 + D). It
    holds its level if, should the choice of heads not matter, the set could as well have been any of the draws. With 20
    draws it cannot be below 0.048, so it cannot pass a correction for many sets.
    """
    draws = np.asarray(draws, dtype=np.float64)
    as_far = int((np.abs(draws) >= abs(effect) - SAME).sum())
    return (1 + as_far) / (1 + len(draws)), 1 / (1 + len(draws))


def over_control(ablated: ArrayLike, draws: ArrayLike, *, seed: int = 0) -> Interval:
    """The mean of `ablated` less that of `draws`, with the interval of a bootstrap over prompts and draws.

    `ablated` (prompts,) and `draws` (prompts, D) are the prompts' values, or their differences to the plain model, in
    [-1, 1]. Both prompts and draws are resampled, because other prompts and other draws might have been taken, and the
    bounds are percentiles.

    Two prompts are added to those that are resampled, one whose difference is 1 and one with -1. The percentiles alone
    are too narrow for rare or nearly certain answers: of 100 prompts with a rate of 0.02, none may be answered in the
    resamples of one arm, and the interval would hold the truth in 84 to 90 % of cases only. With the two it holds it in
    at least 93 % of those simulated. If all prompts and draws differ by the same, the interval is that of
    `difference_interval`, so its width is never 0.
    """
    ablated, draws = np.asarray(ablated, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    each = ablated[:, None] - draws
    difference = float(each.mean())
    if np.ptp(each) < SAME:
        low, high = difference_interval(np.clip(each[:, 0], -1, 1))
        return Interval(difference, min(float(low), difference), max(float(high), difference))
    added = np.concatenate([each, np.full((1, draws.shape[1]), 1.0), np.full((1, draws.shape[1]), -1.0)])
    of_prompts, of_draws = resampled(seed, 0, len(added)), resampled(seed, 1, draws.shape[1])
    of_samples = ((of_prompts @ added) * of_draws).sum(axis=1)
    low, high = np.quantile(of_samples, [TAIL, 1 - TAIL])
    return Interval(difference, min(float(low), difference), max(float(high), difference))
