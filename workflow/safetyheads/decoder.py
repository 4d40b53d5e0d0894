"""The parts of a decoder that scoring and generation reach for: its grid of heads, its layers, its final norm."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from safetyheads.errors import SafetyHeadsError


class Decoder(NamedTuple):
    """The stack of decoder layers and the norm between its last layer and the output layer."""

    layers: nn.ModuleList
    norm: nn.Module


def grid(model: PreTrainedModel) -> tuple[int, int]:
    """(layers, query heads per layer) of a model."""
    config = model.config.get_text_config(decoder=True)
    return config.num_hidden_layers, config.num_attention_heads


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model's inputs go and its logits come from; of weights that are not there, `model.device` is `meta`."""
    hook = getattr(model, "_hf_hook", None)  # of accelerate, for a model that is spread over several devices
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def decoder(model: PreTrainedModel) -> Decoder:
    """The model's layers and final norm, found by watching one forward pass.

    Raises SafetyHeadsError if the model has no single stack of decoder layers with a norm behind it.
    """
    layers, _ = grid(model)
    stacks = [
        (parent, child)
        for parent in model.modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList) and len(child) == layers
    ]
    if len(stacks) != 1:
        raise SafetyHeadsError(f"{type(model).__name__} has {len(stacks)} stacks of {layers} layers; one is supported.")
    parent, stack = stacks[0]
    after: list[nn.Module] = []
    hooks = [stack[-1].register_forward_hook(lambda *_: after.clear())]
    hooks += [
        child.register_forward_hook(lambda module, *_: after.append(module))
        for child in parent.children()
        if child is not stack
    ]
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 1, dtype=torch.long, device=input_device(model)), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(after) != 1:
        raise SafetyHeadsError(f"{type(model).__name__} has no single norm behind its last layer.")
    return Decoder(stack, after[0])


def in_float32(model: PreTrainedModel) -> None:
    """Compute the final norm and the output layer of a 16-bit model in float32.

    The scores compare logits closely: upcasting 16-bit logits would keep their rounding. The output layer's weights
    stay in 16 bits, and are upcast a piece at a time: with a large vocabulary they are a large part of the model.
    """
    norm, output = decoder(model).norm, model.get_output_embeddings()  # type: ignore[no-untyped-call]
    norm.float()
    norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
    _replace_forward(output, partial(_linear_in_float32, output))


_PIECES, _SMALLEST = 64, 2**20
"""In how many pieces the output layer's weights are upcast, none of fewer weights than this."""


def _linear_in_float32(layer: nn.Linear, states: Tensor) -> Tensor:
    weights = max(_SMALLEST, layer.weight.numel() // _PIECES)
    pieces = torch.split(layer.weight, max(1, weights // layer.in_features))
    logits = torch.cat([functional.linear(states.float(), piece.float()) for piece in pieces], dim=-1)
    return logits if layer.bias is None else logits + layer.bias.float()


def _replace_forward(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Let a module compute `forward` for good; accelerate, where it brings the module's weights, still does."""
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        module.forward = forward
        return
    remove_hook_from_module(module)
    module.forward = forward
    add_hook_to_module(module, hook)


def check_numbers(model: PreTrainedModel, *states: Tensor) -> None:
    """Raise SafetyHeadsError if a forward pass has left the range of the model's dtype."""
    if any(bool(state.isnan().any()) for state in states):
        dtype = str(model.dtype).removeprefix("torch.")
        raise SafetyHeadsError(
            f"In {dtype}, {type(model).__name__} computes values that are not numbers (NaN). Set its `dtype` to "
            "bfloat16 or float32. If it is one of these already, its weights are damaged."
        )
