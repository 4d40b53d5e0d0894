"""Gradient: what the refusal margin would lose, to first order, if a head were ablated: from one pass and its way back.

A gate before the output projection goes from a head's own output (1) to its ablated one (0), see `engine.gates`. The
gradient of the margin with respect to the gate at 1 is, summed over positions,

    (plain output - ablated output) . gradient of the margin at the head's output

which is what the margin loses, to first order, as the head is ablated: attribution patching (Nanda 2023; AtP*, arXiv
2403.00745). It can be wrong where attention saturates, or where later layers stand in for the head. So it is measured
beside exact scores, which cost a pass for each head, on a sample of the prompts.
"""

import logging

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_margin import Margin, refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.decoder import grid
from safetyheads.engine.gates import KEPT, slopes
from safetyheads.engine.partial_forward import Top
from safetyheads.heads import Ablation, all_heads

SAMPLE = 8
"""Prompts whose exact scores the estimates are compared with."""
KS = (1, 3, 10)

log = logging.getLogger(__name__)


def gradient(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation,
    first: FirstTokens,
    *,
    sample: int = SAMPLE,
    token_budget: int,
    parts: Parts,
) -> tuple[pd.DataFrame, dict[str, float | int | None]]:
    """Estimate for every head what the refusal margin loses by its ablation, as a mean over prompts.

    `prompts` has token_ids. Returns rows of layer, head and score (nats, float64; above 0, the head supports refusal).
    Beside them stands how the estimates of `sample` evenly spaced prompts agree with their exact scores: `prompts`,
    how many these are; `recall_at_1`, `_3`, `_10`, the share of the heads of highest exact score that are among as many
    of highest estimate, None where the model has no more heads than that; `spearman`, the rank correlation, None where
    all scores are equal. With `sample` 0 nothing is compared.

    Raises SafetyHeadsError if it is not known how refusals or answers begin (`refusal_margin`).
    """
    margin, (layers, heads) = refusal_margin(first), grid(model)
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)

    def at_one(ids: Tensor) -> Tensor:  # (P, layers, heads)
        return slopes(model, ablation, margin, ids, torch.ones(len(ids), layers, heads))

    made = sweep.by_prompt("Gradient", at_one, max(1, token_budget // KEPT))
    found = made.reshape(len(token_ids), layers * heads).astype(np.float64)
    table = pd.DataFrame(all_heads(layers, heads), columns=["layer", "head"]).assign(score=found.mean(axis=0))
    chosen = np.unique(np.linspace(0, len(token_ids) - 1, min(sample, len(token_ids))).round().astype(int))
    if not len(chosen):
        return table, {}
    sampled = Sweep(model, [token_ids[at] for at in chosen], ablation, token_budget, parts)
    agreed = {"prompts": len(chosen), **agreement(found[chosen].mean(axis=0), exact(sampled, margin).mean(axis=0))}
    log.info("Gradient beside exact scores: %s", ", ".join(f"{name} {value}" for name, value in agreed.items()))
    return table, agreed


def exact(sweep: Sweep, margin: Margin) -> np.ndarray:
    """What each prompt's margin loses by the ablation of each head, (prompts, layers * heads) in nats."""
    heads = all_heads(*grid(sweep.passes.model))
    found = np.empty((len(sweep.prompts), len(heads)))

    def lost(plain: Top, ablated: Top) -> Tensor:  # (P, C)
        return margin(plain.logits)[:, None] - margin(ablated.logits).view(len(plain.logits), -1)

    for block, batch, part in sweep.by_batch("Exact", heads, lost):
        found[np.ix_(block.prompts, batch.candidates)] = part
    return found


def agreement(estimates: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Recall of the highest scores among the highest estimates, and Spearman's correlation: both are (heads,)."""
    by_estimate, by_score = (np.argsort(-values, kind="stable") for values in (estimates, scores))
    recalls = {
        f"recall_at_{k}": len(set(by_estimate[:k]) & set(by_score[:k])) / k if k < len(scores) else None for k in KS
    }
    varied = np.ptp(estimates) > 0 and np.ptp(scores) > 0
    return {**recalls, "spearman": float(spearmanr(estimates, scores).statistic) if varied else None}
