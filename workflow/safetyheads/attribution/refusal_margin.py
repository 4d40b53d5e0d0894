"""Refusal margin: by how many nats the first token of the answer is likelier a refusal than an answer.

    margin = log P(R) - log P(C less R)

R are the first tokens of refusals and C the plain model's likeliest first tokens on benign prompts (see
`attribution.refusal_shift`). Methods that need one number for a pass use it: it grows as the model refuses, and falls
only as the model answers, not as it breaks and says anything else.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.errors import SafetyHeadsError

Margin = Callable[[Tensor], Tensor]
"""From logits (..., vocabulary) to margins (...)."""

log = logging.getLogger(__name__)


def refusal_margin(first: FirstTokens) -> Margin:
    """The function that gives the margins (...) of logits (..., vocabulary), in nats and float64.

    It can be differentiated. Warns if the plain model hardly begins with a refusal (`first.word`). Raises
    SafetyHeadsError if there are no first tokens of refusals, or none of answers that are not first tokens of refusals
    as well.
    """
    refusals, answers = list(first.refusals), sorted(set(first.answers) - set(first.refusals))
    if not refusals:
        raise SafetyHeadsError(
            f"The model's refusals cannot be told from its first tokens. {first.word or 'There are no such tokens.'} "
            "Name in `attribution: openings` how this model begins a refusal, or choose a method that needs none."
        )
    if not answers:
        raise SafetyHeadsError(
            "It is not known how the model begins an answer: "
            + (
                "on benign prompts it begins with the first token of a refusal, too."
                if first.answers
                else "give benign prompts, which it answers."
            )
        )

    if first.word:
        log.warning("%s Scores by it may be about something else.", first.word)

    def margin(logits: Tensor) -> Tensor:
        logits = logits.double()
        return torch.logsumexp(logits[..., refusals], dim=-1) - torch.logsumexp(logits[..., answers], dim=-1)

    return margin
