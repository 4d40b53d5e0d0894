"""Generation with heads ablated: one batch, many head sets.

Rows of a batch are prompts with their own heads and their own random numbers; they share a key/value cache, and leave
it when they end. What a row says does not depend on the batch that it is in (up to float rounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.ablation import Ablation, ablate
from safetyheads.artifacts import Parts
from safetyheads.batches import Pieces, padded
from safetyheads.cache import select_rows
from safetyheads.decoder import check_numbers, input_device
from safetyheads.heads import HeadSet
from safetyheads.partial_forward import PartialForward
from safetyheads.prefill import prefill

_RUNNING, _ENDED = -1, -2  # what follows a row's tokens in a part: cut off at max_new_tokens, or end of sequence


@dataclass(frozen=True)
class Decoding:
    """`top_k` 1 is greedy; else one of the k best tokens is drawn at `temperature`, `samples` times per prompt."""

    max_new_tokens: int = 128
    top_k: int = 1
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One completion to make: a prompt's token ids, the heads to ablate, and the key of its random numbers."""

    query_id: str
    token_ids: Sequence[int]
    heads: HeadSet
    sample: int = 0


@dataclass(frozen=True)
class Completion:
    """New token ids, without the end-of-sequence token, and why they end: `eos` or `length`."""

    token_ids: list[int]
    finish_reason: str


def generate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    ablation: Ablation | None,
    decoding: Decoding,
    *,
    eos_token_ids: Sequence[int],
    token_budget: int,
    parts: Parts,
    shard: int = 0,
    shards: int = 1,
) -> dict[int, Completion]:
    """Complete the rows. Returns completions by index of row: all of them, or those of every `shards`-th batch.

    Batches follow from all rows and the token budget alone, whatever the shard.
    """
    batches = padded([list(row.token_ids) for row in rows], decoding.max_new_tokens, token_budget)
    completions: dict[int, Completion] = {}
    if not rows:
        return {}
    passes, pieces = PartialForward(model), Pieces()
    longest = max((row.token_ids for row in rows), key=len)
    for number, batch in enumerate(tqdm(batches[shard::shards], desc="Completions", unit="batch")):
        name = f"{shard + number * shards:06d}"
        tokens = parts.load(name)
        if tokens is None:
            passes.check(longest)
            made = pieces.of(
                lambda some: decode(passes, some, ablation, decoding, eos_token_ids), [rows[index] for index in batch]
            )
            tokens = torch.cat(made).cpu().numpy()
            parts.save(name, tokens)
        completions |= {index: _completion(row) for index, row in zip(batch, tokens)}
    return completions


@torch.inference_mode()
def decode(
    passes: PartialForward,
    rows: Sequence[Row],
    ablation: Ablation | None,
    decoding: Decoding,
    eos_token_ids: Sequence[int],
) -> Tensor:
    """Complete one batch. Returns token ids (B, max_new_tokens), filled up with -1, or with -2 after an end."""
    model, head_sets = passes.model, [row.heads for row in rows]
    prompts = [tuple(row.token_ids) for row in rows]
    device = input_device(model)
    noise = torch.stack([gumbel(row, decoding) for row in rows]).to(device)  # (B, max_new_tokens, k)
    eos = torch.tensor(list(eos_token_ids), dtype=torch.long, device=device)
    tokens = torch.full((len(rows), decoding.max_new_tokens), _RUNNING, device=device)
    running = torch.arange(len(rows), device=device)  # the rows that are still in the batch
    logits, cache = prefill(passes, prompts, head_sets, ablation, decoding.max_new_tokens)
    visible = torch.ones(len(rows), max(map(len, prompts)), dtype=torch.long, device=device)
    for row, prompt in zip(visible, prompts):
        row[: -len(prompt)] = 0
    with ablate(model, ablation, head_sets) as ablated:
        for step in range(decoding.max_new_tokens):
            chosen = choose(logits.float(), decoding, noise[running, step])  # (B,)
            ended = torch.isin(chosen, eos)
            tokens[running, step] = torch.where(ended, _ENDED, chosen)
            if ended.any():
                kept = _compacted(ended)
                running, chosen, visible = running[kept], chosen[kept], visible[kept]
                select_rows(cache, kept)
                if ablated is not None:
                    ablated.select(kept)
            if len(running) == 0 or step == decoding.max_new_tokens - 1:
                break
            visible = torch.cat([visible, visible.new_ones(len(visible), 1)], dim=1)
            logits = model(
                chosen[:, None],
                attention_mask=visible,
                position_ids=visible.sum(dim=1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            check_numbers(model, logits)
    return tokens


def _compacted(ended: Tensor) -> Tensor:
    """The rows (B,) that have not ended, the last ones in the places of those that have."""
    kept = (~ended).nonzero().squeeze(1)
    order = torch.arange(len(kept), device=ended.device)
    order[ended[: len(kept)]] = kept[kept >= len(kept)]
    return order


def choose(logits: Tensor, decoding: Decoding, noise: Tensor) -> Tensor:
    """The next token of each row (B,): arg max over its k best of logit / temperature + noise.

    `logits` (B, vocabulary) float32, `noise` (B, k). Greedy decoding takes the best token; of equal ones the lowest id.
    """
    ids = best(logits, min(decoding.top_k, logits.shape[-1]))  # (B, k)
    if decoding.top_k == 1:
        return ids[:, 0]
    perturbed = logits.gather(1, ids).double() / decoding.temperature + noise[:, : ids.shape[1]]
    return ids.gather(1, perturbed.argmax(dim=1, keepdim=True)).squeeze(1)


def best(logits: Tensor, k: int) -> Tensor:
    """Ids of the k highest logits of each row (B, k), by logit, then by id: `torch.topk` with its ties settled."""
    values, ids = logits.topk(k, dim=-1)
    tied = (logits >= values[:, -1:]).sum(dim=-1) > k
    if tied.any():
        ids[tied] = logits[tied].sort(dim=-1, descending=True, stable=True).indices[:, :k]
    ids = ids.sort(dim=-1).values
    order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True).indices
    return ids.gather(1, order)


def gumbel(row: Row, decoding: Decoding) -> Tensor:
    """The row's Gumbel noise (max_new_tokens, k), float64: a function of (seed, query_id, sample) alone.

    Head sets of one prompt share it, which sharpens paired comparisons; a longer completion starts with the same noise.
    """
    if decoding.top_k == 1:
        return torch.zeros(decoding.max_new_tokens, 1, dtype=torch.float64)
    key = blake2b(f"{decoding.seed}/{row.query_id}/{row.sample}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    uniform = generator.random((decoding.max_new_tokens, decoding.top_k)) + 2.0**-54  # never 0
    return torch.from_numpy(-np.log(-np.log(uniform)))


def _completion(row: np.ndarray) -> Completion:
    tokens = [int(token) for token in row if token >= 0]
    return Completion(tokens, "eos" if _ENDED in row else "length")
