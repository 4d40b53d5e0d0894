"""Mask: gradient descent on a gate for each head finds a group whose ablation takes the refusal margin away.

A gate goes from a head's own output (1) to its ablated one (0), see `engine.gates`. How far a head is ablated, 1 less
the gate, is drawn anew for each prompt and step from a hard concrete distribution (Louizos et al., arXiv 1712.01312),
which is often exactly 0 or 1 and yet can be differentiated. Its one parameter for each head, the logit, is learned by
Adam:

    loss = mean margin of the prompts + strength * expected number of ablated heads

so that a head is ablated if that lowers the mean margin, beside the others of the group, by more than `strength` nats.
The model's weights stay as they are. Several starts, with other prompts and other draws, say how far the group is the
only one.
"""

import logging
from collections.abc import Callable
from math import log as ln

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_margin import Margin, refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.batches import equal
from safetyheads.engine.decoder import grid
from safetyheads.engine.gates import KEPT, slopes
from safetyheads.heads import Ablation, HeadSet, all_heads

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""Of the hard concrete distribution: a concrete one stretched from `LOW` to `HIGH`, and clipped to 0 and 1."""
BEGIN, LIMIT = -2.0, 4.0
"""The logit of each head before the first step (a seventh of it is ablated, in the mean), and the furthest from 0."""
RAMP, RAMP_LIMIT = 50, -1.0
"""Steps over which the strength grows to its full size, and the highest logit till then (three tenths are ablated).

At first the margin alone says where heads go: two that stand in for each other are no gain before both are ablated. But
no head is ablated for good so early, as one that helps while others are not yet ablated may be of no use beside them.
"""
RATE, BETAS = 0.1, (0.9, 0.95)
"""Adam's. It forgets large gradients soon, so that a head falls when the margin does not need it any more."""
STEPS, ROWS = 200, 32
"""The most steps of a start, and the prompts of a step."""
PATIENCE, DECIDED = 20, 0.1
"""A start ends once the group is the same for so many steps and every head decided: ablated, or hardly ever drawn."""

Slope = Callable[[Tensor, list[int]], Tensor]
"""From gates (R, layers, heads) and prompts (R), by their indices: the gradient (R, layers, heads) of their margins."""

log = logging.getLogger(__name__)


def mask(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    ablation: Ablation,
    first: FirstTokens,
    *,
    strength: float = 0.5,
    starts: int = 5,
    seed: int = 0,
    token_budget: int,
    parts: Parts,
) -> pd.DataFrame:
    """Learn which heads to ablate for the refusal margin of the prompts (token_ids) to fall, `starts` times.

    `strength` is what a head must take from the mean margin to be in the group, in nats. Returns rows of layer, head,
    score (how far it is ablated in the end, from 0 to 1, in the mean of the starts), support (share of starts whose
    group holds it; nan for one start) and selected: the group of the start with the lowest loss, where its heads are
    ablated and no others. Each start is a part, so that a job that is killed goes on with the next. Raises
    SafetyHeadsError if it is not known how refusals or answers begin (`refusal_margin`).
    """
    margin, heads = refusal_margin(first), all_heads(*grid(model))
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)
    slope = _slope(sweep, ablation, margin)
    learned = []
    for start in range(starts):
        logits = parts.load(f"start-{start}")
        if logits is None:
            generator = torch.Generator().manual_seed(seed * 1000 + start)
            logits = learn(slope, grid(model), len(token_ids), strength, generator, f"Mask {start + 1}").numpy()
            parts.save(f"start-{start}", logits)
        learned.append(ablated_share(torch.from_numpy(logits)).numpy().ravel())
    shares = np.stack(learned)  # (starts, heads)
    groups = [tuple(heads[at] for at in np.flatnonzero(share > 0.5)) for share in shares]
    margins = sweep.of_sets("Groups", groups, lambda top: margin(top.logits)).mean(axis=0)  # (starts,)
    losses = margins + strength * np.array([len(group) for group in groups])
    best = groups[int(np.argmin(losses))]
    log.info("Groups of the starts, and their losses: %s", "; ".join(map(_words, groups, losses)))
    return pd.DataFrame(heads, columns=["layer", "head"]).assign(
        score=shares.mean(axis=0).astype(np.float64),
        support=(shares > 0.5).mean(axis=0) if starts > 1 else np.nan,
        selected=[head in best for head in heads],
    )


def learn(
    slope: Slope,
    shape: tuple[int, int],
    prompts: int,
    strength: float,
    generator: torch.Generator,
    name: str = "Mask",
) -> Tensor:
    """The logits (layers, heads) after one start: those above 0 are of heads to ablate. See `mask`."""
    logits = torch.full(shape, BEGIN, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=RATE, betas=BETAS)
    still, group = 0, torch.zeros(shape, dtype=torch.bool)
    with torch.enable_grad(), tqdm(range(STEPS), desc=name, unit="step") as bar:
        for step in bar:
            rows = torch.randperm(prompts, generator=generator)[:ROWS].tolist()
            noise = torch.rand((len(rows), *shape), generator=generator).clamp(1e-6, 1 - 1e-6)
            ablated = _stretched((noise.logit() + logits) / TEMPERATURE)  # (R, layers, heads)
            fall = slope((1 - ablated).detach(), rows)
            at_all = torch.sigmoid(logits - TEMPERATURE * ln(-LOW / HIGH))  # the chance that a head is
            loss = -(ablated * fall).sum() / len(rows) + strength * min(1.0, step / RAMP) * at_all.sum()
            adam.zero_grad()
            torch.autograd.backward(loss)
            adam.step()
            logits.data.clamp_(-LIMIT, RAMP_LIMIT if step < RAMP else LIMIT)
            share, before = ablated_share(logits.detach()), group
            group = share > 0.5
            decided = bool(((at_all < DECIDED) | (share > 1 - DECIDED)).all())
            still = still + 1 if step >= RAMP and decided and torch.equal(group, before) else 0
            bar.set_postfix(group=int(group.sum()), refresh=False)
            if still >= PATIENCE:
                break
    return logits.detach()


def ablated_share(logits: Tensor) -> Tensor:
    """How far heads of these logits are ablated when nothing is drawn, from 0 to 1."""
    return _stretched(logits)


def _stretched(logits: Tensor) -> Tensor:
    return (torch.sigmoid(logits) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def _slope(sweep: Sweep, ablation: Ablation, margin: Margin) -> Slope:
    """The gradients of the margins of the sweep's prompts under gates."""

    def slope(at: Tensor, prompts: list[int]) -> Tensor:
        def compute(rows: list[int]) -> Tensor:
            ids = sweep.ids([prompts[row] for row in rows])
            return slopes(sweep.passes.model, ablation, margin, ids, at[rows]).cpu()

        lengths = [len(sweep.prompts[prompt]) for prompt in prompts]
        batches = equal(lengths, max(1, sweep.token_budget // KEPT))
        made = torch.cat([piece for batch in batches for piece in sweep.whole.of(compute, batch)])
        return made[torch.tensor([row for batch in batches for row in batch]).argsort()]

    return slope


def _words(group: HeadSet, loss: float) -> str:
    return f"{', '.join(map(str, group)) or 'none'} ({loss:.3f})"
