"""Resamples of the bootstrap: how often each member of a sample is drawn."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Resamples of the bootstrap."""


@lru_cache(maxsize=8)
def resampled(seed: int, axis: int, size: int) -> NDArray[np.float64]:
    """Weights (RESAMPLES, size) of the members of a sample in each resample: how often each is drawn, over `size`."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, axis, size])))
    drawn = (generator.random((RESAMPLES, size)) * size).astype(np.int64) + size * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size)
    return np.asarray(counts / size, dtype=np.float64)
