"""Knockouts: many heads ablated at once, at random, and a sparse regression that says which of them mattered.

A pass with each head alone costs as many passes as there are heads, and is blind to heads that stand in for each other.
Instead each mask ablates a share of all heads, and the refusal margin under each of far fewer masks is regressed on
which heads it ablated. Few heads matter, so the Lasso finds them from a number of masks that grows with the number of
those few, and only with the logarithm of all (compressed sensing; arXiv 2603.03335).

The more heads are ablated the worse a model works, whichever they are. So masks of one density are compared with each
other alone: responses and columns are centred within each density.
"""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso, LassoCV
from sklearn.model_selection import KFold
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_margin import refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.decoder import grid
from safetyheads.heads import Ablation, all_heads

DENSITIES = (0.02, 0.1, 0.25)
"""Shares of all heads that a mask ablates."""
LEAST = 3
"""The fewest heads of a mask: with fewer, next to no mask would ablate two heads that stand in for each other."""
RESAMPLES = 100
FOLDS = 5
FIRM, STRONG = 0.9, 0.1
"""A head is selected if at least this share of resamples chooses it (Bolasso: Bach, arXiv 0804.1302), and if its score
is at least this share of the highest one.

A penalty that predicts well also chooses heads that do hardly anything. Some of them are noise, and differ between
resamples; others do have an effect, of a hundredth of the strongest one.
"""


class Masks(NamedTuple):
    """Which heads are ablated together."""

    ablated: np.ndarray  # (masks, heads), bool
    sizes: np.ndarray  # (masks,): how many heads each ablates; those of one size are of one density


def knockouts(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation,
    first: FirstTokens,
    *,
    masks: int | None = None,
    seed: int = 0,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Regress the mean refusal margin of the prompts (token_ids) under random masks on the heads that they ablate.

    `masks` is their number, `number_of_masks` if None is given; each costs one pass for each prompt. Returns rows of
    layer, head, score (nats of the margin that the head's ablation takes away, float64: above 0, it supports refusal),
    support (share of resamples of the masks in which the Lasso chooses it) and selected (see `selection`). The same
    seed gives the same masks. Raises SafetyHeadsError if it is not known how refusals or answers begin
    (`refusal_margin`).
    """
    margin, heads = refusal_margin(first), all_heads(*grid(model))
    drawn = draw_masks(len(heads), number_of_masks(len(heads)) if masks is None else masks, seed)
    sets = [tuple(heads[at] for at in np.flatnonzero(mask)) for mask in drawn.ablated]
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)
    margins = sweep.of_sets("Knockouts", sets, lambda top: margin(top.logits))  # (prompts, masks)
    scores, support = regress(drawn, margins.mean(axis=0), seed)
    return pd.DataFrame(heads, columns=["layer", "head"]).assign(
        score=scores, support=support, selected=selection(scores, support)
    )


def number_of_masks(heads: int) -> int:
    """Six for each head, but at least 100 and at most 1,000."""
    return max(100, min(1000, 6 * heads))


def sizes_of(heads: int) -> list[int]:
    """How many heads the masks of each density ablate; of a model with hardly any heads, a quarter of them."""
    sizes = [round(share * heads) for share in DENSITIES]
    return [size for size in sizes if size >= LEAST] or [max(1, sizes[-1])]


def draw_masks(heads: int, masks: int, seed: int) -> Masks:
    """Random masks, as many of each density; every head is ablated equally often, in all and in those of a density.

    Equally often means that numbers differ by 1 at most. The numbers are dealt out beforehand: whatever is left over
    when all heads have got the same goes to the next heads of one random circle. Then each mask takes the heads that
    have most of theirs left, at random among equal ones.
    """
    rng = np.random.default_rng(seed)
    circle, place = rng.permutation(heads), 0
    ablated, of_size = np.zeros((masks, heads), dtype=bool), []
    sizes = sizes_of(heads)
    rows = np.array_split(np.arange(masks), len(sizes))
    for size, own in zip(sizes, rows):
        each, over = divmod(size * len(own), heads)
        left = np.full(heads, each)
        left[np.take(circle, range(place, place + over), mode="wrap")] += 1
        place += over
        for row in own:
            chosen = np.lexsort((rng.random(heads), -left))[:size]
            ablated[row, chosen] = True
            left[chosen] -= 1
        of_size += [size] * len(own)
    return Masks(ablated, np.array(of_size))


def regress(masks: Masks, responses: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and support of each head, (heads,), from the responses (masks,) of masks.

    A score is minus the head's coefficient in the Lasso whose penalty cross-validation chooses. Support is the share of
    `RESAMPLES` samples of the masks, drawn with replacement within each density, in which the Lasso with that penalty
    chooses the head. Both are 0 if within each density all responses are the same.
    """
    columns, centred = _within(masks.sizes, masks.ablated.astype(float)), _within(masks.sizes, responses.astype(float))
    if np.abs(centred).max() <= 1e-9 * max(1.0, np.abs(responses).max()):
        return np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    folds = KFold(min(FOLDS, len(centred)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of penalties near 0, which are not chosen
        fitted = LassoCV(cv=folds, fit_intercept=False, max_iter=5000).fit(columns, centred)
        chosen = np.zeros(columns.shape[1])
        for sample in _resampled(masks.sizes, seed):
            of_sample = _within(masks.sizes[sample], columns[sample]), _within(masks.sizes[sample], centred[sample])
            chosen += Lasso(fitted.alpha_, fit_intercept=False, max_iter=5000).fit(*of_sample).coef_ != 0
    return 0.0 - fitted.coef_, chosen / RESAMPLES


def selection(scores: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Whether a head is among those whose ablation clearly takes the margin away, (heads,): see `FIRM`, `STRONG`."""
    selected: np.ndarray = (scores > 0) & (support >= FIRM) & (scores >= STRONG * scores.max())
    return selected


def _within(sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (masks, ...) less the mean of the masks of the same size."""
    centred = values.copy()
    for size in np.unique(sizes):
        centred[sizes == size] -= values[sizes == size].mean(axis=0)
    return centred


def _resampled(sizes: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """`RESAMPLES` samples of the masks, by their indices: of each size as many as there are."""
    rng = np.random.default_rng((seed, 1))
    groups = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
    for _ in range(RESAMPLES):
        yield np.concatenate([rng.choice(group, len(group)) for group in groups])
