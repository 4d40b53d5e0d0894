"""Ships, the Safety Head ImPortant Score: how far one head's ablation moves the next-token distribution.

Ships(x, h) = KL( p(. | x; model) || p(. | x; model without h) ) over the full vocabulary, in nats (Zhou et al., ICLR
2025, eq. 9).
"""

from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_shift import NOTHING, FirstTokens, shifts
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.decoder import grid
from safetyheads.engine.divergence import divergence
from safetyheads.engine.partial_forward import Top
from safetyheads.heads import Ablation, all_heads

MEASURED = ("score", "refusal_shift", "answer_shift")


def ships(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation | None,
    *,
    first: FirstTokens = NOTHING,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Score every head for every prompt.

    `prompts` has query_id and token_ids. `first` are the tokens whose shifts are measured besides
    (`refusal_shift.first_tokens`). Returns rows of layer, head, query_id, score (nats, float64), refusal_shift and
    answer_shift (nats, nan where not given), sorted by query, layer and head.
    """
    heads = all_heads(*grid(model))
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    found = np.empty((len(prompts), len(heads), len(MEASURED)))
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)
    for block, batch, part in sweep.by_batch("Ships", heads, partial(_measured, first=first)):
        found[np.ix_(block.prompts, batch.candidates)] = part
    rows = pd.DataFrame(list(heads) * len(prompts), columns=["layer", "head"])
    rows = rows.assign(query_id=prompts["query_id"].repeat(len(heads)).to_numpy())
    rows[list(MEASURED)] = found.reshape(-1, len(MEASURED))
    return rows.sort_values(["query_id", "layer", "head"], ignore_index=True)


def _measured(plain: Top, ablated: Top, first: FirstTokens) -> Tensor:
    """`MEASURED` (P, C, 3) of prompts x candidates of a batch: prompt by prompt, because float64 logits are large."""
    rows = ablated.logits.view(len(plain.logits), -1, ablated.logits.shape[-1])  # (P, C, vocabulary)
    return torch.stack(
        [
            torch.cat([divergence(logits, of_heads)[:, None], shifts(logits, of_heads, first)], dim=-1)
            for logits, of_heads in zip(plain.logits, rows)
        ]
    )
