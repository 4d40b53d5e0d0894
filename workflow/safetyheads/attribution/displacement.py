"""Displacement: greedy search for the group whose ablation moves the prompts' states furthest.

    score = |ablated - plain| / |plain - mean of plain|    Frobenius norms of the matrices (prompts, d_model)

It is the distance that the states are moved, as a share of how far the prompts are from each other; 1 is a move as
large as the differences between prompts. Sahara compares directions of such matrices, and a direction may turn less if
half of the prompts move than if a tenth of them do. A distance does not: who moves more prompts, or moves them further,
scores higher. Like Sahara and Ships it sees any change, also one that has nothing to do with refusing.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.greedy import greedy
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation


def displacement(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation | None,
    *,
    steps: int,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Search the group whose ablation moves the states behind the final norm, at the last position, furthest.

    `prompts` has token_ids. Returns as `greedy` does; the score is a distance as a share of the spread of the plain
    states. Raises SafetyHeadsError as `greedy` does, and if the states of all prompts are the same.
    """
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)

    def state(top: Top) -> Tensor:  # (R, d_model)
        return top.final_norm

    plain = sweep.plain(state).double()  # (prompts, d_model)
    spread = torch.linalg.norm(plain - plain.mean(dim=0))
    if spread == 0:
        raise SafetyHeadsError(
            "All prompts have the same state, so there is no spread to measure by. Use more prompts."
        )

    def score(states: Tensor) -> np.ndarray:  # (candidates, prompts, d_model) -> (1, candidates)
        moved = [torch.linalg.norm(one.double() - plain) / spread for one in states]
        return torch.stack(moved)[None].cpu().numpy()

    return greedy("A search by displacement", sweep, steps, state, score)
