"""Attack success rates corrected for the errors of the judge, with intervals that count the labels' uncertainty.

A judge with sensitivity q1 and specificity q0 calls p = r q1 + (1 - r)(1 - q0) of the answers harmful if r of them are.
So the corrected rate is (p + q0 - 1) / (q0 + q1 - 1), clipped to [0, 1] (Rogan and Gladen, American Journal of
Epidemiology 107, 1978). This is about the judge's word `harmful`, the ASR, and not about the outcome `complied`.

The interval is a parametric bootstrap over the three samples (arXiv 2511.21140), with posterior draws: q1 and q0 as in
`calibration`, and p from a beta distribution with half a prompt more of either kind, of as many prompts as the samples
tell (`intervals.effective_n`). Its bounds are percentiles of the rates of the draws, clipped only then: clipping the
draws, or dropping those beyond [0, 1], would move the percentiles. In simulations with a sensitivity of 0.85, a
specificity of 0.7, 100 prompts and 200 labels, stratified by what the judge said and by condition with unequal weights,
the intervals held true rates of 0.05, 0.2, 0.4 and 0.9 in 93 to 97 % of 2,000 studies each, with one sample and with
three, and effects in 94 to 96 %. Wilson's intervals of the raw rates, of one sample, held them in 0, 0, 31 and 10 %.

All cells share their draws, so a map of 1,024 heads costs little more than one cell, and no cell changes because
another one is there.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv
from scipy.stats import norm

from safetyheads.statistics.calibration import Calibrated, calibrated, corrected_by
from safetyheads.statistics.intervals import TAIL, wilson
from safetyheads.statistics.labels import checked, decided
from safetyheads.statistics.resampling import RESAMPLES

_LEAST = 1e-9
"""Below this, q0 + q1 - 1 of a draw is taken for this: the draw then says that the rate may be anything."""

_GRID = np.linspace(-4.5, 4.5, 91)
"""Normal numbers at which quantiles are computed."""

_AT_ONCE = 1024
"""Different rates whose draws are in memory together."""

CORRECTED = ("corrected_asr", "corrected_low", "corrected_high")
"""The columns of a corrected rate and its interval."""

Floats = NDArray[np.float64]


class Corrected(NamedTuple):
    """Corrected values and the bounds of their 95 % intervals."""

    value: Floats
    low: Floats
    high: Floats


class Corrections:
    """The judges that have labels, ready to correct rates.

    `labels` has the columns `labels.COLUMNS`, with the rows of all judges; None for no labels. Raises SafetyHeadsError
    as `labels.checked` does.
    """

    def __init__(self, labels: pd.DataFrame | None = None, *, seed: int = 0) -> None:
        known = None if labels is None else checked(labels)
        self.judges: dict[str, dict[str, Calibrated]] = {}
        for judge, own in () if known is None else known.groupby("judge", sort=True):
            self.judges[str(judge)] = calibrated(decided(own), seed=seed)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
        self._normal = np.stack([norm.ppf(_even(generator)) for _ in range(2)])  # (2, RESAMPLES)

    def by(self, judge: str, condition: str) -> str | None:
        """The condition whose sensitivity and specificity correct the judge's rates of `condition`, if any do."""
        return corrected_by(self.judges[judge], condition)[0] if judge in self.judges else None

    def rates(self, judge: str, condition: str, measured: ArrayLike, prompts: ArrayLike) -> Corrected | None:
        """The corrected rates (...,) of rates `measured` (...,) on `prompts` (...,); None without a calibration.

        `prompts` need not be whole: of prompts with several samples it is the effective number.
        """
        found = self._usable(judge, condition)
        if found is None:
            return None
        rate = np.asarray(measured, dtype=np.float64)
        n = np.floor(np.asarray(prompts, dtype=np.float64)) + np.zeros_like(rate)
        pairs, at = np.unique(np.stack([rate.ravel().round(12), n.ravel()]), axis=1, return_inverse=True)
        bounds = np.empty((2, pairs.shape[1]))
        for start in range(0, pairs.shape[1], _AT_ONCE):
            some = pairs[:, start : start + _AT_ONCE]
            drawn = _latent(_rate_draws(some[0], some[1], self._normal[0]), *found.draws)
            bounds[:, start : start + _AT_ONCE] = np.quantile(drawn, [TAIL, 1 - TAIL], axis=-1)
        value = np.clip(_latent(rate, found.sensitivity, found.specificity), 0, 1)
        low, high = np.clip(bounds[:, at.reshape(-1)].reshape(2, *rate.shape), 0, 1)
        # Where all draws lie beyond 0 or 1, the interval is that of none, or all, of n without an error of the judge.
        empty, of_n = low >= high, wilson(value * n, n)
        low, high = np.where(empty, of_n[0], low), np.where(empty, of_n[1], high)
        return Corrected(value, np.minimum(low, value), np.maximum(high, value))

    def effect(
        self, judge: str, plain: tuple[float, float], ablated: tuple[float, float], r: float
    ) -> Corrected | None:
        """The corrected rate of `ablated` less that of `plain`, each a rate and its number of prompts; None as `rates`.

        `r` is the correlation of the prompts' values (`paired_correlation`): the prompts are the same, so the draws of
        both rates are drawn together (a normal copula), and those of q1 and q0 belong together anyway.
        """
        before, after = self._usable(judge, "plain"), self._usable(judge, "ablated")
        if before is None or after is None:
            return None
        together = r * self._normal[0] + np.sqrt(1 - r**2) * self._normal[1]
        plain_value, plain_drawn = _one(before, plain, self._normal[0])
        value, drawn = _one(after, ablated, together)
        difference = value - plain_value
        low, high = np.clip(np.quantile(drawn - plain_drawn, [TAIL, 1 - TAIL]), -1, 1)
        return Corrected(difference, np.minimum(low, difference), np.maximum(high, difference))

    def _usable(self, judge: str, condition: str) -> Calibrated | None:
        by = self.by(judge, condition)
        return None if by is None else self.judges[judge][by]


def paired_correlation(plain: ArrayLike, ablated: ArrayLike) -> float:
    """The correlation of prompts' values (prompts,), all in [0, 1].

    Four prompts of half a weight are added, one for each pair of 0 and 1, so that it is always defined, and below 1
    also where no prompt changes: the next one may.
    """
    x, y = (
        np.concatenate([np.asarray(values, dtype=np.float64), more]) for values, more in zip((plain, ablated), _ADDED)
    )
    weight = np.concatenate([np.ones(len(x) - 4), np.full(4, 0.5)])
    x, y = (values - np.average(values, weights=weight) for values in (x, y))
    return float((weight * x * y).sum() / np.sqrt((weight * x**2).sum() * (weight * y**2).sum()))


_ADDED = (np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))


def _even(generator: np.random.Generator) -> Floats:
    """Numbers (RESAMPLES,) in (0, 1), one in each of as many equal parts, in random order."""
    return np.asarray((generator.permutation(RESAMPLES) + generator.random(RESAMPLES)) / RESAMPLES, dtype=np.float64)


def _one(found: Calibrated, measured: tuple[float, float], normal: Floats) -> tuple[Floats, Floats]:
    """The corrected rate of a rate and its number of prompts, and draws (RESAMPLES,) of it that are not clipped."""
    rate, n = (np.array([value], dtype=np.float64) for value in measured)
    value = np.clip(_latent(rate[0], found.sensitivity, found.specificity), 0, 1)
    return value, _latent(_rate_draws(rate, np.floor(n), normal)[0], *found.draws)


def _rate_draws(rate: Floats, n: Floats, normal: Floats) -> Floats:
    """Draws (rates, RESAMPLES) of what the judge calls harmful, given rates (rates,) of n prompts.

    They are quantiles of a beta distribution at the normal numbers (RESAMPLES,): computed at the points of `_GRID`, and
    between them on straight lines, which are one product of matrices for all rates.
    """
    a, b = n * rate + 0.5, n * (1 - rate) + 0.5
    quantiles = betaincinv(a[:, None], b[:, None], norm.cdf(_GRID)[None, :])
    place = np.clip(np.searchsorted(_GRID, normal) - 1, 0, len(_GRID) - 2)
    share = np.clip((normal - _GRID[place]) / np.diff(_GRID)[place], 0, 1)
    lines = np.zeros((len(_GRID), len(normal)))
    lines[place, np.arange(len(normal))], lines[place + 1, np.arange(len(normal))] = 1 - share, share
    return np.asarray(quantiles @ lines, dtype=np.float64)


def _latent(rate: ArrayLike, sensitivity: ArrayLike, specificity: ArrayLike) -> Floats:
    """The rates of harmful answers before they are clipped, for a judge's sensitivity and specificity."""
    false, true = 1 - np.asarray(specificity), np.asarray(sensitivity)
    return np.asarray((np.asarray(rate) - false) / np.maximum(true - false, _LEAST), dtype=np.float64)
