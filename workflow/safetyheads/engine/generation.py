"""Generation with heads ablated: one batch, many head sets.

Each row of a batch has its own prompt, its own ablated heads and its own random numbers. The rows share a key/value
cache, and leave it when they end. What a row says does not depend on the batch that it is in (up to float rounding).
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
from safetyheads.engine.generation_checks import check_padding, may_follow
from safetyheads.engine.kv_cache import select_rows, takes_fewer_rows
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.engine.positions import borders, probes, side
from safetyheads.engine.prefill import next_logits, prefill
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.engine.shared_rows import Followers
from safetyheads.heads import Ablation, HeadSet
from safetyheads.plans import Decoding

_RUNNING, _ENDED = -1, -2  # what fills up a row of a part: no token yet, or none any more as the sequence has ended


@dataclass(frozen=True)
class Row:
    """One completion to make: a prompt's token ids and the heads to ablate.

    With `query_id` and `sample`, a row has the same random numbers wherever it is computed.
    """

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

    Each batch is kept as a part, and not computed again. Batches follow from all rows and the token budget, whatever
    the shard: the same rows are computed together, so that shards give the bits of one job. Rows whose rotary
    frequencies differ are not; `positions.check_sides` must have seen that no row's change on the way.
    """
    of = borders(model.config)
    prompts = [list(row.token_ids) for row in rows]
    batches = padded(prompts, decoding.max_new_tokens, token_budget, lambda tokens: side(tokens, of))
    completions: dict[int, Completion] = {}
    if not rows:
        return {}
    passes, pieces, follow = PartialForward(model), Pieces(parts), None
    shortest, longest = probes(prompts, of)
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
    """Complete one batch. Returns token ids (rows, max_new_tokens), filled up with -1, or with -2 after an end.

    `batch` has B rows: those that were asked for and still run, and plain rows that lead them, if rows may follow
    others (see `shared_rows`). It gets smaller from step to step, and with it all that has a row for each of them.
    """
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
    logits, cache = prefill(passes, prompts, head_sets, ablation, new, batch.starts.tolist())  # (B, vocabulary)
    visible = torch.ones(len(prompts), longest, dtype=torch.long, device=device)  # (B, T): 0 at padding
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
                order = torch.from_numpy(moves.order).to(device)  # (B,), of the rows that are left
                chosen, visible = chosen[order], visible[order]
                select_rows(cache, [moves.sources(layer, computed) for layer, computed in enumerate(batch.computed)])
                if ablated is not None:
                    ablated.select(order, batch.computed)
            logits, visible = next_logits(model, chosen, visible, cache)
    return tokens


def choose(logits: Tensor, decoding: Decoding, noise: Tensor) -> Tensor:
    """The next token of each row (B,): arg max over its k best of logit / temperature + noise.

    With Gumbel noise, that is a draw from the softmax over these k. `logits` are (B, vocabulary) float32, `noise` is
    (B, k). Greedy decoding takes the best token; of equal ones the lowest id.
    """
    ids = best(logits, min(decoding.top_k, logits.shape[-1]))  # (B, k)
    if decoding.top_k == 1:
        return ids[:, 0]
    perturbed = logits.gather(1, ids).double() / decoding.temperature + noise[:, : ids.shape[1]]
    return ids.gather(1, perturbed.argmax(dim=1, keepdim=True)).squeeze(1)


def best(logits: Tensor, k: int) -> Tensor:
    """Ids (B, k) of the k highest `logits` (B, vocabulary) of each row, by logit, then by id.

    `torch.topk` leaves open which of equal logits it takes, and that may differ from device to device.
    """
    values, ids = logits.topk(k, dim=-1)
    tied = (logits >= values[:, -1:]).sum(dim=-1) > k
    if tied.any():
        ids[tied] = logits[tied].sort(dim=-1, descending=True, stable=True).indices[:, :k]
    ids = ids.sort(dim=-1).values
    order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True).indices
    return ids.gather(1, order)


def gumbel(row: Row, decoding: Decoding) -> Tensor:
    """The row's Gumbel noise (max_new_tokens, k), float64: a function of (seed, query_id, sample) alone.

    So it depends neither on batches nor on heads: all head sets of a prompt draw with the same noise, which sharpens
    paired comparisons. A longer completion starts with the noise of a shorter one.
    """
    if decoding.top_k == 1:
        return torch.zeros(decoding.max_new_tokens, 1, dtype=torch.float64)
    key = blake2b(f"{decoding.seed}/{row.query_id}/{row.sample}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    uniform = generator.random((decoding.max_new_tokens, decoding.top_k)) + 2.0**-54  # never 0
    return torch.from_numpy(-np.log(-np.log(uniform)))


def _completion(row: np.ndarray) -> Completion:
    """What a row of a part (max_new_tokens,) says."""
    tokens = [int(token) for token in row if token >= 0]
    return Completion(tokens, "eos" if _ENDED in row else "length")
