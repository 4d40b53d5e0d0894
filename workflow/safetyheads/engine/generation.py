"""Generation with heads ablated: one batch, many head sets.

Rows of a batch are prompts with their own heads and their own random numbers; they share a key/value cache, and leave
it when they end. What a row says does not depend on the batch that it is in (up to float rounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.ablation import ablate
from safetyheads.engine.batches import padded
from safetyheads.engine.decoder import input_device
from safetyheads.engine.kv_cache import select_rows, takes_fewer_rows
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.engine.prefill import next_logits, prefill
from safetyheads.engine.self_checks import check_padding, check_shortcuts, may_follow
from safetyheads.engine.shared_rows import Followers
from safetyheads.heads import Ablation, HeadSet
from safetyheads.plans import Decoding

_RUNNING, _ENDED = -1, -2  # what follows a row's tokens in a part: cut off at max_new_tokens, or end of sequence


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
    passes, pieces, follow = PartialForward(model), Pieces(parts), None
    shortest, longest = (choice((row.token_ids for row in rows), key=len) for choice in (min, max))
    for number, batch in enumerate(tqdm(batches[shard::shards], desc="Completions", unit="batch")):
        name = f"{shard + number * shards:06d}"
        tokens = parts.load(name)
        if tokens is None:
            if follow is None:
                check_shortcuts(passes, longest)
                check_padding(passes, shortest, longest)
                follow = may_follow(passes, longest)
            compute = partial(
                decode, passes, ablation=ablation, decoding=decoding, eos_token_ids=eos_token_ids, follow=follow
            )
            made = pieces.of(compute, [rows[index] for index in batch])
            tokens = np.concatenate(made)
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
    *,
    follow: bool = True,
) -> np.ndarray:
    """Complete one batch. Returns token ids (rows, max_new_tokens), filled up with -1, or with -2 after an end."""
    model, device, new = passes.model, input_device(passes.model), decoding.max_new_tokens
    keys = [(tuple(row.token_ids), row.query_id, row.sample) for row in rows]
    longest = max(len(row.token_ids) for row in rows)
    follow = follow and takes_fewer_rows(model, longest + new)
    batch = Followers(keys if follow else range(len(rows)), [row.heads for row in rows], len(passes.layers))
    prompts = [tuple(rows[like].token_ids) for like in batch.like]
    head_sets = [() if added else rows[like].heads for like, added in zip(batch.like, batch.added)]
    noise = torch.stack([gumbel(row, decoding) for row in rows]).to(device)  # (rows, max_new_tokens, k)
    eos = torch.tensor(list(eos_token_ids), dtype=torch.long, device=device)
    tokens = np.full((len(rows), new), _RUNNING)
    logits, cache = prefill(passes, prompts, head_sets, ablation, new, batch.starts.tolist())
    visible = torch.ones(len(prompts), longest, dtype=torch.long, device=device)
    for row, prompt in zip(visible, prompts):
        row[: -len(prompt)] = 0
    with ablate(model, ablation, head_sets) as ablated, batch.left_out(passes.layers):
        if ablated is not None:
            ablated.computed = batch.computed
        for step in range(new):
            chosen = choose(logits.float(), decoding, noise[batch.like, step])  # (B,)
            ids, ended = chosen.cpu().numpy(), torch.isin(chosen, eos).cpu().numpy()
            tokens[batch.like[~batch.added], step] = np.where(ended, _ENDED, ids)[~batch.added]
            if step == new - 1:
                break
            if (moves := batch.go_on(ids, ended)) is not None:
                if not len(batch.like):
                    break
                order = torch.from_numpy(moves.order).to(device)
                chosen, visible = chosen[order], visible[order]
                select_rows(cache, [moves.sources(layer, computed) for layer, computed in enumerate(batch.computed)])
                if ablated is not None:
                    ablated.select(order, batch.computed)
            logits, visible = next_logits(model, chosen, visible, cache)
    return tokens


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
