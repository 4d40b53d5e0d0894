"""Refusal direction: which heads write, on harmful prompts, what tells these from benign ones.

The direction of a layer is the mean residual stream behind it at the last position, of harmful less of benign prompts,
of unit length (Arditi et al., arXiv 2406.11717). A head's score is the projection of what it adds there (its output
times its slice of the output projection) on the direction, harmful less benign (RDSHA, arXiv 2508.19697). Nothing is
ablated: heads are named by what they write, not by what depends on it.
"""

import logging
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.contributions import contributions, residuals
from safetyheads.engine.decoder import grid
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import all_heads

Layer = Literal["own", "best"]
"""Whose direction a head is projected on: that of its own layer, or that of the layer that separates best."""

log = logging.getLogger(__name__)


def refusal_direction(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    benign: pd.DataFrame,
    *,
    layer: Layer = "own",
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Score every head by what it writes along the refusal direction of its `layer`, or of the best one.

    `prompts`, the harmful ones, and `benign` have token_ids. Returns rows of layer, head and score: a length in the
    residual stream, in the unit of the states' norms, float64; above 0, the head writes more of the direction on
    harmful prompts.

    Raises SafetyHeadsError for another `layer`, if there are too few prompts (one of each kind; four for `best`), and
    if both kinds have the same mean.
    """
    if layer not in get_args(Layer):
        raise SafetyHeadsError(f"Unknown layer {layer!r} of the refusal direction. Allowed: {get_args(Layer)}.")
    if min(len(prompts), len(benign)) < (least := 4 if layer == "best" else 1):
        raise SafetyHeadsError(
            f"There are {len(prompts)} harmful and {len(benign)} benign prompts: the refusal direction needs at least "
            f"{least} of each."
        )
    token_ids = [list(map(int, ids)) for table in (prompts, benign) for ids in table["token_ids"]]
    sweep, harmful = Sweep(model, token_ids, None, token_budget, parts), len(prompts)
    states = sweep.by_prompt("Residuals", partial(residuals, model, list(sweep.passes.layers))).astype(np.float64)
    found = directions(states[:harmful], states[harmful:])  # (layers, d_model)
    if layer == "best":
        separations = separation(states[:harmful], states[harmful:])
        best = int(np.argmax(separations))
        log.info("The refusal direction of layer %d separates best: by %.3g deviations.", best, separations[best])
        found = np.broadcast_to(found[best], found.shape)
    added = sweep.by_prompt("Contributions", partial(contributions, model, torch.tensor(np.array(found))))
    score = added[:harmful].mean(axis=0) - added[harmful:].mean(axis=0)  # (layers, heads)
    return pd.DataFrame(all_heads(*grid(model)), columns=["layer", "head"]).assign(score=score.ravel())


def directions(harmful: np.ndarray, benign: np.ndarray) -> np.ndarray:
    """The unit vectors (layers, d_model) from the mean of benign to that of harmful states (prompts, layers, d_model).

    Raises SafetyHeadsError where both means are the same.
    """
    between: np.ndarray = harmful.mean(axis=0) - benign.mean(axis=0)
    lengths = np.linalg.norm(between, axis=-1, keepdims=True)
    if not lengths.all():
        raise SafetyHeadsError(
            f"Harmful and benign prompts have the same mean state behind layer {int(lengths.argmin())}: there is no "
            "refusal direction. Are they the same prompts?"
        )
    unit: np.ndarray = between / lengths
    return unit


def separation(harmful: np.ndarray, benign: np.ndarray) -> np.ndarray:
    """How well each layer's direction separates prompts that it was not made from, (layers,).

    States are (prompts, layers, d_model). Every second prompt of both kinds makes a direction, on which the others are
    projected: the difference of their means, over the root of their mean variance. Then the halves change places; the
    value is the mean of both.
    """
    found = []
    for made, tried in ((0, 1), (1, 0)):
        direction = directions(harmful[made::2], benign[made::2])
        sides = [(states[tried::2] * direction).sum(axis=-1) for states in (harmful, benign)]  # (prompts, layers)
        spread = np.sqrt((sides[0].var(axis=0) + sides[1].var(axis=0)) / 2)
        found.append((sides[0].mean(axis=0) - sides[1].mean(axis=0)) / np.maximum(spread, np.finfo(float).tiny))
    mean: np.ndarray = np.mean(found, axis=0)
    return mean
