"""A gate for every head, between its own output (1) and its ablated one (0): ablation that can be differentiated.

Before the output projection each head gives

    ablated + gate * (plain - ablated)

so that a gate of 1 leaves the head, 0 ablates it, and the gradient with respect to a gate at 1 is, with the opposite
sign, the first-order change under the ablation. `ablated` is computed by the code of `ablation`, for all heads of a
layer at once: what an ablation puts in the place of a head does not depend on whether others of its layer are ablated.

Upper layers see what the gates of lower layers have changed, as with `ablate`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.engine.ablation import Attend, attend_ablated, attend_by
from safetyheads.engine.decoder import check_numbers, grid
from safetyheads.engine.positions import relax, stretching_ropes
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Kind

KEPT = 8
"""A pass that is differentiated keeps what its layers have computed: so many times fewer tokens fit into a batch."""


@contextmanager
def gates(model: PreTrainedModel, ablation: Ablation, gates: Tensor) -> Iterator[None]:
    """Put `gates` before the heads of every forward pass of `model` within the block.

    `gates`, of floating point numbers, are (layers, heads), the same in every row of a pass, or (B, layers, heads) with
    those of each row; results can be differentiated with respect to them. Weights get no gradients from passes within
    the block. All is over when it ends, also by an error. Raises SafetyHeadsError for gates of another shape, within
    another block of ablation, and if the model is not installed for ablation.
    """
    layers, heads = grid(model)
    if gates.dim() not in (2, 3) or gates.shape[-2:] != (layers, heads):
        raise SafetyHeadsError(
            f"Gates of shape {tuple(gates.shape)} were given. They must have the shape ({layers}, {heads}), the "
            f"model's layers and the heads of each, or (rows of the batch, {layers}, {heads})."
        )

    def gated(attend: Attend, module: Any, query: Tensor, *states: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        if gates.dim() == 3 and len(gates) not in (1, len(query)):
            raise SafetyHeadsError(f"Gates for {len(gates)} rows were given for a batch of {len(query)} rows.")
        plain, weights = attend(module, query, *states, **kwargs)  # (B, T, N, d)
        every = torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)  # (B, N)
        after = ablation.kind in (Kind.SCALING, Kind.MEAN_OUTPUT)  # attention itself is not changed
        again: Attend = (lambda *_, **__: (plain, weights)) if after else attend
        ablated, _ = attend_ablated(again, ablation, every, module, query, *states, **kwargs)
        gate = gates[..., int(module.layer_idx), None, :, None].to(plain)  # (1, N, 1) or (B, 1, N, 1)
        return torch.lerp(ablated, plain, gate), weights

    with frozen(model), attend_by(model, gated):
        yield


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Within the block, no weight of the model gets gradients; then those do again that did before."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def last_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The logits (B, vocabulary) behind prompts of token ids (B, T), float32 at least, that can be differentiated.

    Raises SafetyHeadsError if they have values that are not numbers.
    """
    relax(stretching_ropes(model))
    logits: Tensor = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1]
    check_numbers(model, logits.detach())
    return logits if logits.dtype == torch.float64 else logits.float()


def slopes(
    model: PreTrainedModel, ablation: Ablation, measure: Callable[[Tensor], Tensor], ids: Tensor, at: Tensor
) -> Tensor:
    """The gradient (B, layers, heads) of `measure` for each prompt with respect to its gates, where these are `at`.

    `measure` gives numbers (B) for logits (B, vocabulary). Prompts are token ids (B, T), `at` is (B, layers, heads) in
    float32.
    """
    with torch.enable_grad():
        here = at.detach().to(ids.device).requires_grad_()
        with gates(model, ablation, here):
            total = measure(last_logits(model, ids)).sum()
        (found,) = torch.autograd.grad(total, here)
    return found
