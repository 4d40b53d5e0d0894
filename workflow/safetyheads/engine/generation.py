"""Generation with heads ablated: one batch, many head sets.

Each row of a batch has its own prompt, its own ablated heads and its own random numbers. The rows share a key/value
cache, and leave it when they end. What a row says does not depend on the batch that it is in (up to float rounding).

In 16 bits, that rounding changes some answers. So a row of few heads should be compared with a plain row of its own
batch, which was rounded as it was: with `paired`, each batch has one for each of its prompts and samples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any

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
from safetyheads.engine.likelihood import Likelihoods
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.engine.partial_forward import PartialForward, Shortcut
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
    """New token ids, without the end-of-sequence token, and why they end: `eos` or `length`.

    Completions are equal if they say the same. What else is known of one:
    """

    token_ids: list[int]
    finish_reason: str
    first_kl: float | None = field(default=None, compare=False)
    """KL(plain || ablated) of the first new token, in nats; None if nothing is ablated."""
    plain_nll: float | None = field(default=None, compare=False)
    """Its mean negative log-likelihood under the plain model, in nats per token; None if empty, or not asked for."""
    plain: "Completion | None" = field(default=None, compare=False)
    """What the plain row of its own batch says; None if the batch has none."""


def generate(
    model: PreTrainedModel,
    rows: Sequence[Row],
    ablation: Ablation | None,
    decoding: Decoding,
    *,
    eos_token_ids: Sequence[int],
    token_budget: int,
    parts: Parts,
    paired: bool = False,
    likelihoods: bool = False,
    shard: int = 0,
    shards: int = 1,
) -> dict[int, Completion]:
    """Complete the rows. Returns completions by index of row: all of them, or those of every `shards`-th batch.

    With `paired`, each batch also holds the plain row of each of its prompts and samples; no row may be plain itself.
    With `likelihoods`, completions have their `plain_nll`, which costs a pass for each different one.
    Each batch is kept as a part, and not computed again. Batches follow from all rows and the token budget, whatever
    the shard: the same rows are computed together, so that shards give the bits of one job. Rows whose rotary
    frequencies differ are not; `positions.check_sides` must have seen that no row's change on the way.
    """
    of = borders(model.config)
    prompts = [list(row.token_ids) for row in rows]
    more = [_key(row) for row in rows] if paired else ()
    batches = padded(prompts, decoding.max_new_tokens, token_budget, lambda tokens: side(tokens, of), more)
    completions: dict[int, Completion] = {}
    plain: dict[bytes, Completion] | None = {} if paired else None
    if not rows:
        return {}
    passes, pieces, follow = PartialForward(model), Pieces(parts), None
    known = Likelihoods(passes)
    shortest, longest = probes(prompts, of)
    for number, batch in enumerate(tqdm(batches[shard::shards], desc="Completions", unit="batch")):
        name = f"{shard + number * shards:06d}"
        part = parts.load(name)
        if part is None:
            if follow is None:
                check_shortcuts(passes, longest, Shortcut.SPLIT)
                check_padding(passes, shortest, longest)
                follow = may_follow(passes, longest)
            compute = partial(
                decode,
                passes,
                ablation=ablation,
                decoding=decoding,
                eos_token_ids=eos_token_ids,
                follow=follow,
                paired=paired,
            )
            part = np.concatenate(pieces.of(compute, [rows[index] for index in batch]))
            if likelihoods:
                for row, index in zip(part, batch):
                    row["nll"] = [known.of(prompts[index], _new(row[said])) for said in ("tokens", "plain")]
            parts.save(name, part)
        completions |= {index: _completion(row, plain) for index, row in zip(batch, part)}
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
    paired: bool = False,
) -> np.ndarray:
    """Complete one batch. Returns an array (rows,) of the type `part_type`.

    `batch` has B rows that still run: those that were asked for, and, if they are `paired`, their plain rows. It gets
    smaller from step to step, and with it all that has a row for each of them.
    """
    model, device, new, asked = passes.model, input_device(passes.model), decoding.max_new_tokens, len(rows)
    plain: dict[tuple[Hashable, ...], int] = {}  # the place of the plain row of each prompt and sample
    if paired:
        first = {_key(row): row for row in reversed(rows)}
        plain = {key: asked + at for at, key in enumerate(first)}
        rows = [*rows, *(replace(row, heads=()) for row in first.values())]
    longest = max(len(row.token_ids) for row in rows)
    follow = follow and takes_fewer_rows(model, longest + new)
    keys = [_key(row) for row in rows] if follow else range(len(rows))
    batch = Followers(keys, [row.heads for row in rows], len(passes.layers))
    prompts, head_sets = [tuple(rows[at].token_ids) for at in batch.rows], [rows[at].heads for at in batch.rows]
    noise = torch.stack([gumbel(row, decoding) for row in rows]).to(device)  # (rows, max_new_tokens, k)
    eos = torch.tensor(list(eos_token_ids), dtype=torch.long, device=device)
    tokens = np.full((len(rows), new), _RUNNING)
    logits, cache, divergence = prefill(passes, prompts, head_sets, ablation, new, batch.starts.tolist())
    first_kl = np.full(len(rows), np.nan)
    first_kl[batch.rows] = divergence.numpy()
    visible = torch.ones(len(prompts), longest, dtype=torch.long, device=device)  # (B, T): 0 at padding
    for row, prompt in zip(visible, prompts):
        row[: -len(prompt)] = 0
    with ablate(model, ablation, head_sets) as ablated, batch.left_out(passes.layers):
        if ablated is not None:
            ablated.computed = batch.computed
        for step in range(new):
            chosen = choose(logits.float(), decoding, noise[batch.rows, step])  # (B,)
            ids, ended = chosen.cpu().numpy(), torch.isin(chosen, eos).cpu().numpy()
            tokens[batch.rows, step] = np.where(ended, _ENDED, ids)
            if step == new - 1:
                break
            if (moves := batch.go_on(ids, ended)) is not None:
                if not len(batch.rows):
                    break
                order = torch.from_numpy(moves.order).to(device)  # (B,), of the rows that are left
                chosen, visible = chosen[order], visible[order]
                select_rows(cache, [moves.sources(layer, computed) for layer, computed in enumerate(batch.computed)])
                if ablated is not None:
                    ablated.select(order, batch.computed)
            logits, visible = next_logits(model, chosen, visible, cache)
    made = np.zeros(asked, part_type(new))
    made["tokens"], made["first_kl"], made["nll"] = tokens[:asked], first_kl[:asked], np.nan
    if paired:
        made["plain"] = tokens[[plain[_key(row)] for row in rows[:asked]]]
    return made


def part_type(new_tokens: int) -> np.dtype[np.void]:
    """What a part has of each row.

    `tokens` and `plain` are what the row and the plain row of its batch say: token ids, filled up with -1, or with -2
    after an end. `first_kl` is in nats; `nll` is of `tokens` and of `plain`, in nats per token. NaN is unknown.
    """
    said = (np.int32, (new_tokens,))
    return np.dtype([("tokens", *said), ("plain", *said), ("first_kl", np.float64), ("nll", np.float64, (2,))])


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


def _key(row: Row) -> tuple[Hashable, ...]:
    """Rows of one key differ only in their heads: they have the same prompt and draw with the same random numbers."""
    return tuple(row.token_ids), row.query_id, row.sample


def _new(tokens: np.ndarray) -> list[int]:
    """The token ids of a row of a part (max_new_tokens,), without what fills it up."""
    return [int(token) for token in tokens if token >= 0]


def _completion(row: np.void, known: dict[bytes, Completion] | None) -> Completion:
    """What a row of a part says.

    `known` has the plain answers so far; None where batches have no plain rows. Maps have millions of rows, and most of
    a prompt's have the same plain answer: they share one object.
    """
    first_kl, nll, nll_of_plain = (
        None if np.isnan(value) else float(value) for value in (row["first_kl"], *row["nll"])
    )
    plain = None
    if known is not None:
        key = row["plain"].tobytes() + row["nll"][1].tobytes()
        plain = known.get(key) or known.setdefault(key, _said(row["plain"], plain_nll=nll_of_plain))
    return _said(row["tokens"], first_kl=first_kl, plain_nll=nll, plain=plain)


def _said(tokens: np.ndarray, **known: Any) -> Completion:
    return Completion(_new(tokens), "eos" if _ENDED in tokens else "length", **known)
