"""How far a distribution of the next token moves when heads are ablated."""

import torch
from torch import Tensor


def divergence(plain: Tensor, ablated: Tensor) -> Tensor:
    """KL(plain || ablated) (...) of distributions with these logits (..., vocabulary), in nats, computed in float64."""
    log_p, log_q = (torch.log_softmax(logits.double(), dim=-1) for logits in (plain, ablated))
    # A token that the plain model rules out adds nothing to the sum, where the formula would say 0 x infinity.
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(dim=-1).clamp_min(0.0)
