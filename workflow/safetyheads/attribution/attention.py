"""How much each head looks at the query when the answer is about to begin.

An attack template may not change what a head does, but whether it sees the request at all: heads that attend to the
query in a clean prompt may attend to the words of the attack instead.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.attention_weights import last_weights
from safetyheads.engine.batches import equal
from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.heads import all_heads

log = logging.getLogger(__name__)


def attention_to_query(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    places: Sequence[Sequence[int]],
    *,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """The share of its attention that each head's last position gives to the tokens of the query, for every prompt.

    `prompts` has query_id and token_ids, and `places` the places of the query's tokens in each prompt
    (`prompts.query_tokens`). Returns rows of query_id, layer, head and to_query (0 to 1; nan where the query has no
    places), sorted.
    """
    if nowhere := [query for query, own in zip(prompts["query_id"], places) if not len(own)]:
        log.warning(
            "The token ids of %d prompts do not hold their query, as the tokenizer changes it (first %s): attention to "
            "it is not known.",
            *(len(nowhere), nowhere[0]),
        )
    heads, pieces = all_heads(*grid(model)), Pieces(parts)
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    found = np.empty((len(prompts), len(heads)))

    def measure(some: list[int]) -> np.ndarray:  # (P, heads) of prompts of one length
        weights = last_weights(model, torch.tensor([token_ids[at] for at in some], device=input_device(model)))
        shares = [row[:, :, list(places[at])].sum(dim=-1).flatten() for at, row in zip(some, weights)]
        return torch.stack(shares).double().cpu().numpy()

    for batch in tqdm(equal(list(map(len, token_ids)), token_budget), desc="Attention", unit="batch"):
        found[batch] = np.concatenate(pieces.of(measure, batch))
    found[[not len(own) for own in places]] = np.nan
    rows = pd.DataFrame(list(heads) * len(prompts), columns=["layer", "head"])
    rows = rows.assign(query_id=prompts["query_id"].repeat(len(heads)).to_numpy(), to_query=found.ravel())
    return rows.sort_values(["query_id", "layer", "head"], ignore_index=True)
