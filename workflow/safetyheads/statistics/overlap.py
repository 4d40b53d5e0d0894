"""How far do two rankings of a model's heads agree, and how far would they by chance?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from safetyheads.errors import SafetyHeadsError

PERSISTENCE = 0.9
"""The first ten ranks have 86 % of the weight of rank-biased overlap (Webber, Moffat and Zobel, 2010, eq. 21)."""


def ranking(scores: ArrayLike) -> NDArray[np.int64]:
    """The places of the heads from the highest score to the lowest; of equal scores the first, as plans choose."""
    return np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")


def jaccard(first: Sequence[int], second: Sequence[int]) -> float:
    """The heads that both sets have, over those that any has."""
    return len({*first} & {*second}) / len({*first} | {*second})


def expected_jaccard(size: int, heads: int) -> float:
    """The mean Jaccard index of two sets of `size` heads drawn at random from `heads`."""
    shared = np.arange(size + 1)
    return float(hypergeom.pmf(shared, heads, size, size) @ (shared / (2 * size - shared)))


def chance_of_shared(shared: int, size: int, heads: int) -> float:
    """The probability that two such random sets share so many heads or more (hypergeometric distribution)."""
    return float(hypergeom.sf(shared - 1, heads, size, size))


def rank_biased_overlap(first: ArrayLike, second: ArrayLike, persistence: float = PERSISTENCE) -> float:
    """The rank-biased overlap of two rankings (heads,) of the same heads: 1 if they are equal.

    The share of heads that the first d of both have in common, averaged over d with weights that fall by `persistence`
    from one rank to the next (Webber, Moffat and Zobel, ACM Transactions on Information Systems 28, 2010, eq. 32). Both
    name all heads, so nothing is extrapolated. Raises SafetyHeadsError if they do not name the same ones.
    """
    one, other = np.asarray(first), np.asarray(second)
    heads = np.arange(len(one))
    if not (np.array_equal(np.sort(one), heads) and np.array_equal(np.sort(other), heads)):
        raise SafetyHeadsError("Two rankings can be compared only if both name all heads of one grid, each once.")
    # The rank of a head, from 0, is its place in a ranking. The first d of both have it if no rank reaches d.
    ranks = np.maximum(np.argsort(one), np.argsort(other))
    shared = np.cumsum(np.bincount(ranks, minlength=len(heads)))
    return _weighted(shared / (heads + 1), persistence)


def expected_overlap(heads: int, persistence: float = PERSISTENCE) -> float:
    """The mean rank-biased overlap of two rankings of so many heads in random order."""
    return _weighted(np.arange(1, heads + 1) / heads, persistence)


def _weighted(agreement: NDArray[np.float64], persistence: float) -> float:
    """The weighted mean of agreements at depths 1, 2, ...; deeper than all heads they are 1."""
    weights = (1 - persistence) * persistence ** np.arange(len(agreement))
    return float(weights @ agreement + persistence ** len(agreement))
