"""What each head adds to the residual stream at the last position of a prompt, along a direction.

A head adds its output times its slice of the output projection, whose weights each family keeps in another place and
shape. So they are not looked for. An attention module's output is linear in the outputs of its heads: its gradient
with respect to them, times them, is what each of them adds, in whatever way the family computes it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from safetyheads.engine.ablation import Attend, attend_by
from safetyheads.engine.gates import frozen, last_logits


@torch.inference_mode()
def residuals(model: PreTrainedModel, layers: Sequence[nn.Module], ids: Tensor) -> Tensor:
    """The residual stream (P, layers, d_model) behind each of the model's `layers`, at the end of prompts (P, T)."""
    found: dict[int, Tensor] = {}

    def see(at: int, _: nn.Module, __: Any, output: Any) -> None:
        found[at] = _states(output)[:, -1].float().cpu()

    with ExitStack() as hooks:
        for at, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(partial(see, at)).remove)
        last_logits(model, ids)
    return torch.stack([found[at] for at in range(len(layers))], dim=1)


def contributions(model: PreTrainedModel, directions: Tensor, ids: Tensor) -> Tensor:
    """What each head adds at the end of prompts (P, T) along the direction of its layer: (P, layers, heads), float64.

    `directions` are (layers, d_model). Scaling and norms between an attention module's output and the residual stream,
    which some families have, are left out. Raises SafetyHeadsError within a block of ablation, and if the model is not
    installed for ablation.
    """
    found: dict[int, Tensor] = {}
    outputs: dict[nn.Module, Tensor] = {}

    def attend(own: Attend, module: nn.Module, *states: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        output, weights = own(module, *states, **kwargs)
        outputs[module] = output.detach().requires_grad_()  # (P, T, N, d)
        return outputs[module], weights

    def project(module: nn.Module, _: Any, result: Any) -> Any:
        if module not in outputs:  # it does not attend
            return None
        layer, output = int(module.layer_idx), outputs.pop(module)  # type: ignore[arg-type]
        last = _states(result)[:, -1]  # (P, d_model)
        along = (last * directions[layer].to(last)).sum()
        (slope,) = torch.autograd.grad(along, output)
        found[layer] = (slope[:, -1].double() * output.detach()[:, -1].double()).sum(dim=-1).cpu()  # (P, N)
        return (result[0].detach(), *result[1:]) if isinstance(result, tuple) else result.detach()

    with torch.enable_grad(), frozen(model), attend_by(model, attend), _behind_every_module(model, project):
        last_logits(model, ids)
    return torch.stack([found[layer] for layer in range(len(directions))], dim=1)


@contextmanager
def _behind_every_module(model: PreTrainedModel, hook: Any) -> Iterator[None]:
    """Within the block, `hook(module, inputs, output)` is called behind each module, and may change its output."""
    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_hook(hook).remove)
        yield


def _states(output: Any) -> Tensor:
    """The hidden states (P, T, d_model) of a module's output: in some families the first of a tuple."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states
