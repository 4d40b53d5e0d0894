"""Exact tests of prompts' differences, and the correction for many tests."""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

SAME = 1e-9
"""Means that differ by less are equal: they are sums of few fractions, and only rounding tells them apart."""

LEVEL = 0.05
"""A p-value below this is beyond what chance explains."""


@cache
def sign_test(more: int, less: int) -> float:
    """The exact two-sided p-value of `more` positive and `less` negative differences; 1.0 if there are neither.

    Differences of zero are left out. With one sample per prompt this is McNemar's exact test.
    """
    return float(binomtest(more, more + less).pvalue) if more + less else 1.0


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """The p-values after Holm's correction over all that are not null; null where they are.

    As `multipletests` of statsmodels, which collects garbage at every call: 0.1 s for each small family.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")  # nulls last
    left = np.arange((~np.isnan(p_values)).sum(), 0, -1)
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order[: len(left)]] = np.minimum(np.maximum.accumulate(p_values[order[: len(left)]] * left), 1)
    return adjusted
