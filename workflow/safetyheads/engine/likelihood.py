"""How likely the plain model finds an answer: what tells words in no order from text (see `judges.degenerate`).

Each answer is a pass of its own, with nothing ablated and no other row beside it. So its likelihood follows from
prompt and answer alone, to the last bit, in whatever plan, batch or shard it was given. Most head sets change nothing,
and then all of a prompt's answers are one, which is looked at once.
"""

from collections.abc import Sequence
from math import nan

import torch

from safetyheads.engine.decoder import check_numbers, input_device
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.engine.positions import relax

_AT_A_TIME = 32

Tokens = tuple[int, ...]


class Likelihoods:
    """The mean negative log-likelihood of answers under the plain model, each computed once."""

    def __init__(self, passes: PartialForward) -> None:
        self.passes = passes
        self.known: dict[tuple[Tokens, Tokens], float] = {}

    def of(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """That of an answer's token ids behind a prompt's, in nats per token; NaN for an empty answer."""
        key = tuple(prompt), tuple(answer)
        if key not in self.known:
            self.known[key] = self._computed(*key) if answer else nan
        return self.known[key]

    @torch.inference_mode()
    def _computed(self, prompt: Tokens, answer: Tokens) -> float:
        model = self.passes.model
        ids = torch.tensor([[*prompt, *answer]], device=input_device(model))  # (1, T)
        relax(self.passes.stretching)
        logits = model(ids, use_cache=False, logits_to_keep=len(answer) + 1).logits[0, :-1]  # (answer, vocabulary)
        check_numbers(model, logits)
        chosen = ids[0, -len(answer) :, None].to(logits.device)  # (answer, 1)
        losses = []
        for at in range(0, len(answer), _AT_A_TIME):  # some positions at a time: in float64 they are large
            some = logits[at : at + _AT_A_TIME].double()
            losses.append(torch.logsumexp(some, dim=-1) - some.gather(1, chosen[at : at + _AT_A_TIME]).squeeze(1))
        return float(torch.cat(losses).mean())
