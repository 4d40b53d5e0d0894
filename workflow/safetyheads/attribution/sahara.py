"""Sahara, the Safety Attention Head AttRibution Algorithm: greedy search for a group of heads (Zhou et al., alg. 1).

A group's score is generalised Ships: the angle by which its ablation turns the dominant left singular vectors of the
matrix of the prompts' last-position states (eq. 10-12). These vectors have one entry for each prompt. So the score sees
how the prompts' states change in relation to each other: an ablation that moves all prompts alike leaves the vectors
where they were.
"""

import logging
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from scipy.linalg import subspace_angles
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.greedy import greedy
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.decoder import input_device
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation

Representation = Literal["final_norm", "residual"]
GAP = 1.05  # sigma_r / sigma_(r+1) below this: the subspace of the first r vectors is not well defined
MEMORY = 2**24  # bytes of float64 states that are scored together, of those of a layer

log = logging.getLogger(__name__)


def sahara(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation | None,
    *,
    steps: int,
    rank: int,
    representation: Representation,
    centred: bool = False,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Search the group step by step (`greedy`), by the angle in degrees.

    `prompts` has token_ids. With `centred`, all states are less the plain model's mean over the prompts (see
    `sahara_centred`). Raises SafetyHeadsError as `greedy` does, or if `rank` is not less than the number of prompts, or
    is more than the rank of their states.
    """
    if representation not in get_args(Representation):
        raise SafetyHeadsError(f"Unknown representation {representation!r}. Allowed: {get_args(Representation)}.")
    if not 1 <= rank < len(prompts):
        raise SafetyHeadsError(
            f"rank {rank} with {len(prompts)} prompts: it must be at least 1 and less than the number of prompts, for "
            "as many vectors as prompts span everything and the angle is always 0."
        )
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)
    device = input_device(model) if input_device(model).type == "cuda" else torch.device("cpu")

    def state(top: Top) -> Tensor:  # (R, d_model)
        found: Tensor = getattr(top, representation)
        return found

    def score(states: Tensor) -> np.ndarray:  # (candidates of a layer, prompts, d_model) -> (2, candidates)
        return _angles_and_gaps(base, states, centre, rank, device)

    plain = sweep.plain(state).double()  # (prompts, d_model)
    centre = plain.mean(dim=0) if centred else None
    (base,), (gap,) = left_singular_vectors(_less(plain[None], centre), rank)
    del plain  # of all prompts
    if gap < GAP:
        log.warning("Plain model: sigma_%d / sigma_%d is %.3f; no angle is well defined.", rank, rank + 1, gap)

    def tell_loose(step: int, found: np.ndarray) -> None:
        if loose := int((found[1] < GAP).sum()):
            log.warning(
                "Step %d: for %d of %d groups sigma_%d / sigma_%d is below %s; their angle is not well defined.",
                *(step, loose, found.shape[1], rank, rank + 1, GAP),
            )

    return greedy("Sahara", sweep, steps, state, score, tell_loose)


def _angles_and_gaps(
    base: np.ndarray, states: Tensor, centre: Tensor | None, rank: int, device: torch.device
) -> np.ndarray:
    """The angle to `base` (prompts, rank) of each of C matrices (C, prompts, d_model), and its gap: (2, C).

    The rows of the matrices are less `centre` (d_model,), if there is one.
    """
    _, prompts, width = states.shape
    some = max(1, MEMORY // (8 * prompts * width))
    found = [left_singular_vectors(_less(part.to(device).double(), centre), rank) for part in torch.split(states, some)]
    angles = [angle(base, vectors) for left, _ in found for vectors in left]
    return np.stack([angles, np.concatenate([gaps for _, gaps in found])])


def _less(states: Tensor, centre: Tensor | None) -> Tensor:
    """States (..., d_model) less a centre (d_model,)."""
    return states if centre is None else states - centre.to(states.device)


def left_singular_vectors(matrices: Tensor, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `rank` left singular vectors (C, rows, rank) of C matrices (C, rows, columns), float64.

    Also returns the gaps sigma_r / sigma_(r+1) (C,). They come from the eigenvectors of the Gram matrix of the smaller
    side, all by one batched call. Raises SafetyHeadsError if a matrix has a lower numerical rank.
    """
    _, rows, columns = matrices.shape
    tall = columns < rows
    values, vectors = torch.linalg.eigh(matrices.mT @ matrices if tall else matrices @ matrices.mT)  # ascending
    sigma = values.flip(-1).clamp_min(0.0).sqrt()
    tolerance = sigma[:, 0] * max(rows, columns) * torch.finfo(torch.float32).eps  # of states that were float32
    ranks = (sigma > tolerance[:, None]).sum(dim=-1)
    if bool((ranks < rank).any()):
        raise SafetyHeadsError(
            f"rank {rank} is more than the numerical rank of the prompts' states, {int(ranks.min())}. "
            "Lower `rank`, or use more, and more different, prompts."
        )
    chosen = vectors.flip(-1)[..., :rank]
    left = torch.linalg.qr(matrices @ chosen).Q if tall else chosen
    following = sigma[:, rank] if rank < sigma.shape[1] else torch.zeros_like(sigma[:, 0])
    return left.cpu().numpy(), (sigma[:, rank - 1] / following).cpu().numpy()


def angle(first: np.ndarray, second: np.ndarray) -> float:
    """The sum of the principal angles between two column spaces (rows, r), in degrees."""
    return float(np.degrees(subspace_angles(first, second)).sum())
