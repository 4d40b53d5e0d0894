"""How scores are distributed over the heads of a model: the cumulative distribution, the density, and the tail."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import gaussian_kde

from safetyheads.statistics.intervals import Z

TAIL_SHARE = 0.1
"""The share of heads, those of highest score, that the tail index goes by."""


class Tail(NamedTuple):
    """How fast the share of heads above a score falls: as the score to the power of -`exponent`. Null where unknown.

    Below 2 the scores have no variance and below 1 no mean: then one head may have more than all others together.
    """

    exponent: float
    low: float
    high: float
    heads: int
    """How many heads it was found from."""


def tail(scores: ArrayLike, share: float = TAIL_SHARE) -> Tail:
    """The tail index of the scores above 0 by Hill's estimator, with its asymptotic 95 % interval.

    It is 1 over the mean of log(score / threshold) of the k highest scores, where the next lower one is the threshold
    (Hill, Annals of Statistics 3, 1975). k is `share` of all heads, but at least 2; there must be one score more.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))[::-1]
    k = max(2, round(share * len(values)))
    if len(values) <= k or values[k] <= 0 or values[0] == values[k]:
        return Tail(np.nan, np.nan, np.nan, 0)
    index = 1 / float(np.log(values[:k] / values[k]).mean())
    return Tail(index, max(0.0, index * (1 - Z / np.sqrt(k))), index * (1 + Z / np.sqrt(k)), k)


def cumulative(scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores in ascending order, and the share of heads with no higher score."""
    values = np.sort(np.asarray(scores, dtype=np.float64))
    return values, np.searchsorted(values, values, side="right") / len(values)


def density(scores: ArrayLike, points: int = 200) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores at equal ratios, and how densely heads lie there per factor of ten (Gaussian kernels on log10, by Scott).

    Only scores above 0 count; both are empty where fewer than two differ.
    """
    values = np.asarray(scores, dtype=np.float64)
    logs = np.log10(values[values > 0])
    if len(np.unique(logs)) < 2:
        return np.empty(0), np.empty(0)
    kernel = gaussian_kde(logs)
    margin = 3 * float(np.sqrt(kernel.covariance[0, 0]))
    at = np.linspace(logs.min() - margin, logs.max() + margin, points)
    return 10**at, kernel(at)
