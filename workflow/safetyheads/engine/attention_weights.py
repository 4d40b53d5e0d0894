"""How much each head's last position attends to each token of a prompt, by the eager attention of the model's family.

Kernels such as sdpa do not tell the weights. The family's own eager code does, with all that belongs to it: windows,
sinks, soft caps.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from safetyheads.engine.ablation import Attend
from safetyheads.engine.implementations import EAGER, attending, implementation, wrapped
from safetyheads.errors import SafetyHeadsError


def last_weights(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The attention weights (B, layers, heads, T) of the last position, for prompts of token ids (B, T), in float32.

    A row sums to 1, or to less where a head attends to a sink that is no token. Raises SafetyHeadsError for a model
    whose family has no eager attention.
    """
    with attending(model, EAGER):
        if implementation(model) != EAGER:
            raise SafetyHeadsError(f"{type(model).__name__} has no eager attention, so its weights cannot be seen.")
        with wrapped(EAGER, _Seeing) as seen, torch.inference_mode():
            model(ids, use_cache=False, logits_to_keep=1)
    return torch.stack([weights[..., : ids.shape[1]].to(ids.device) for weights in seen.weights], dim=1)


class _Seeing:
    """An attention function around another one that keeps the weights of the last position."""

    def __init__(self, base: Attend) -> None:
        self.base = base
        self.weights: list[Tensor] = []  # (B, N, S) of each layer, in turn

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: object,
    ) -> tuple[Tensor, Tensor | None]:
        output, weights = self.base(module, query, key, value, attention_mask, **kwargs)
        if weights is None:
            raise SafetyHeadsError(f"{type(module).__name__} does not tell its attention weights.")
        self.weights.append(weights[:, :, -1].float())
        return output, weights
