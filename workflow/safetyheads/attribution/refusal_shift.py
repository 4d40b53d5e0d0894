"""Refusal shift: does an ablation move the first token of the answer towards refusing, or away from it?

A divergence has no sign: a head that holds refusals up and one that holds them back may have the same Ships score. So
each score gets two signs, changes (ablated - plain) of log odds, in nats:

    refusal_shift   of R, the first tokens of refusals; below 0, the head supports refusal
    answer_shift    of C, the plain model's likeliest first tokens on benign prompts

What a model says to most benign prompts, too, is no sign of a refusal and is left out of R. Both are measures of the
first token alone. Where the plain model hardly begins with one of R on harmful prompts, they would be about nothing and
are not given; methods that go by first tokens say so beside their scores.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.partial_forward import Top

LEAST = 0.05
"""The mean probability of R on the scored prompts below which no shift is given."""


class FirstTokens(NamedTuple):
    """The first tokens whose shifts are measured, and how far they tell harmful from benign prompts.

    `p_harmful` and `p_benign` are the plain model's mean probabilities of `refusals` on the scored and on the benign
    prompts, and `auroc` is the chance that a scored prompt has a higher one than a benign prompt. Both of the latter
    are None without benign prompts. `word` says why first tokens do not tell refusals, if they do not: then there are
    no shifts.
    """

    refusals: tuple[int, ...] = ()
    answers: tuple[int, ...] = ()
    p_harmful: float | None = None
    p_benign: float | None = None
    auroc: float | None = None
    word: str | None = None

    def record(self) -> dict[str, Any]:
        """For the provenance."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self._asdict().items()}


NOTHING = FirstTokens(word="No shift was asked for.")


def first_tokens(
    model: PreTrainedModel,
    prompts: pd.DataFrame,
    benign: pd.DataFrame | None,
    openings: Sequence[int],
    *,
    token_budget: int,
    parts: Parts,
) -> FirstTokens:
    """Which first tokens of the plain model's answers are refusals and which are answers.

    `prompts` and `benign` have token_ids. `openings` are ids that refusals begin with (`templates.opening_tokens`).
    """
    if not openings:
        return FirstTokens(word="No opening of a refusal has a first token of its own behind these prompts.")

    def measure(top: Top) -> Tensor:  # (P, 1 + openings): the likeliest token, and the log-probabilities of `openings`
        log_p = torch.log_softmax(top.logits.double(), dim=-1)  # (P, vocabulary)
        return torch.cat([top.logits.argmax(-1, keepdim=True).double(), log_p[:, list(openings)]], dim=-1)

    count = 0 if benign is None else len(benign)
    together = [*prompts["token_ids"], *(() if benign is None else benign["token_ids"])]
    token_ids = [list(map(int, ids)) for ids in together]
    measured = Sweep(model, token_ids, None, token_budget, parts).plain(measure)
    likeliest = measured[len(prompts) :, 0].long().tolist()  # on benign prompts
    kept = [at for at, id_ in enumerate(openings) if not likeliest.count(id_) > count / 2]
    refusals, answers = tuple(openings[at] for at in kept), tuple(sorted(set(likeliest)))
    if not refusals:
        return FirstTokens((), answers, word="Most benign prompts are answered with the first token of a refusal, too.")
    p = measured[:, 1:][:, kept].logsumexp(dim=-1).exp().numpy()  # (prompts + benign,)
    harmful, others = p[: len(prompts)], p[len(prompts) :]
    low = float(harmful.mean())
    word = (
        f"The plain model begins with a refusal with probability {low:.2g} only, below {LEAST}: its first "
        "tokens hardly say whether it refuses."
    )
    return FirstTokens(
        refusals,
        answers,
        low,
        float(others.mean()) if count else None,
        float(mannwhitneyu(harmful, others).statistic) / (len(harmful) * count) if count else None,
        word if low < LEAST else None,
    )


def shifts(plain: Tensor, ablated: Tensor, first: FirstTokens) -> Tensor:
    """The shifts (..., 2) of refusals and of answers, float64, from logits (vocabulary,) and (..., vocabulary).

    They are nan where they are not given: both if `first` has a `word`, that of answers if there are none.
    """
    wanted = [() if first.word else ids for ids in (first.refusals, first.answers)]
    nothing = torch.full(ablated.shape[:-1], torch.nan, dtype=torch.float64, device=ablated.device)
    return torch.stack([log_odds(ablated, ids) - log_odds(plain, ids) if ids else nothing for ids in wanted], dim=-1)


def log_odds(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """logsumexp of the logits (..., vocabulary) of `tokens`, less that of all others, in nats and float64: (...)."""
    ids, logits = torch.tensor(tokens, device=logits.device), logits.double()
    others = logits.index_fill(-1, ids, -torch.inf)
    return logits[..., ids].logsumexp(dim=-1) - others.logsumexp(dim=-1)
