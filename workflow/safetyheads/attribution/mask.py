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
from collections.abc import Callable, Sequence
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
    ablated and no others. The gradients of each step are a part, so that a job that is killed goes on with the next
    step. Raises SafetyHeadsError if it is not known how refusals or answers begin (`refusal_margin`).
    """
    margin, heads = refusal_margin(first), all_heads(*grid(model))
    token_ids = [list(map(int, ids)) for ids in prompts["token_ids"]]
    sweep = Sweep(model, token_ids, ablation, token_budget, parts)
    seeds = [seed * 1000 + start for start in range(starts)]
    logits = learn(_slope(sweep, ablation, margin), grid(model), len(token_ids), strength, seeds, parts)
    shares = ablated_share(logits).flatten(1).numpy()  # (starts, heads)
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
    slope: Slope, shape: tuple[int, int], prompts: int, strength: float, seeds: Sequence[int], parts: Parts
) -> Tensor:
    """The logits (starts, layers, heads) after a start from each of `seeds`: those above 0 are of heads to ablate.

    All starts take a step together, so that a batch holds prompts of all of them. See `mask`.
    """
    starts = [_Start(shape, seed) for seed in seeds]
    with tqdm(range(STEPS), desc="Mask", unit="step") as bar:
        for step in bar:
            going = [start for start in starts if start.still < PATIENCE]
            if not going:
                break
            drawn = [start.draw(prompts) for start in going]
            pulls = parts.load(f"step-{step}")
            if pulls is None:
                at = torch.cat([1 - ablated for _, ablated in drawn]).detach()
                falls = torch.split(
                    slope(at, [row for rows, _ in drawn for row in rows]), [len(rows) for rows, _ in drawn]
                )
                pulls = np.stack(
                    [start.pull(ablated, fall).numpy() for start, (_, ablated), fall in zip(going, drawn, falls)]
                )
                parts.save(f"step-{step}", pulls)
            for start, pull in zip(going, torch.from_numpy(pulls)):
                start.move(pull, strength * min(1.0, step / RAMP), held=step < RAMP)
            bar.set_postfix(groups=" ".join(str(int(start.group.sum())) for start in starts), refresh=False)
    return torch.stack([start.logits.detach() for start in starts])


class _Start:
    """The descent from one seed: what is learned, and for how many steps its group has been the same."""

    def __init__(self, shape: tuple[int, int], seed: int) -> None:
        self.logits = torch.full(shape, BEGIN, requires_grad=True)
        self.adam = torch.optim.Adam([self.logits], lr=RATE, betas=BETAS)
        self.generator = torch.Generator().manual_seed(seed)
        self.still, self.group = 0, torch.zeros(shape, dtype=torch.bool)

    def draw(self, prompts: int) -> tuple[list[int], Tensor]:
        """Some of so many prompts, R of them, and how far each head is ablated in each, (R, layers, heads)."""
        rows = torch.randperm(prompts, generator=self.generator)[:ROWS].tolist()
        noise = torch.rand((len(rows), *self.logits.shape), generator=self.generator).clamp(1e-6, 1 - 1e-6)
        with torch.enable_grad():
            return rows, _stretched((noise.logit() + self.logits) / TEMPERATURE)

    def pull(self, ablated: Tensor, fall: Tensor) -> Tensor:
        """The gradient (layers, heads) of the mean margin, of which `fall` (R, layers, heads) is that by the gates."""
        with torch.enable_grad():
            loss = -(ablated * fall).sum() / len(ablated)
            (found,) = torch.autograd.grad(loss, self.logits)
        return found

    @torch.no_grad()
    def move(self, pull: Tensor, strength: float, held: bool) -> None:
        """Take a step by the gradient of the margin and of the expected number of heads, which costs `strength` each.

        While logits are `held`, no head is ablated for good, and the start does not end.
        """
        at_all = torch.sigmoid(self.logits - TEMPERATURE * ln(-LOW / HIGH))  # the chance that a head is
        self.logits.grad = pull + strength * at_all * (1 - at_all)
        self.adam.step()
        self.logits.clamp_(-LIMIT, RAMP_LIMIT if held else LIMIT)
        share, before = ablated_share(self.logits), self.group
        self.group = share > 0.5
        decided = bool(((at_all < DECIDED) | (share > 1 - DECIDED)).all())
        self.still = self.still + 1 if decided and not held and torch.equal(self.group, before) else 0


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
