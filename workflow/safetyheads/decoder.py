"""The parts of a decoder that scoring and generation reach for: its grid of heads, its layers, its final norm."""

from inspect import signature
from typing import NamedTuple

import torch
from torch import Tensor, nn
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
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(after) != 1:
        raise SafetyHeadsError(f"{type(model).__name__} has no single norm behind its last layer.")
    return Decoder(stack, after[0])


def cache_argument(model: PreTrainedModel) -> str:
    """What the model's forward calls its cache: `cache` since transformers 5.24, before that `past_key_values`."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def in_float32(model: PreTrainedModel) -> None:
    """Compute the final norm and the output layer of a 16-bit model in float32.

    The scores compare logits closely: upcasting 16-bit logits would keep their rounding.
    """
    norm, output = decoder(model).norm, model.get_output_embeddings()  # type: ignore[no-untyped-call]
    output.weight = nn.Parameter(output.weight.detach().float(), requires_grad=False)  # unties it, where it was tied
    if output.bias is not None:
        output.bias = nn.Parameter(output.bias.detach().float(), requires_grad=False)
    norm.float()
    norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))


def check_numbers(model: PreTrainedModel, *states: Tensor) -> None:
    """Raise SafetyHeadsError if a forward pass has left the range of the model's dtype."""
    if any(bool(state.isnan().any()) for state in states):
        dtype = str(model.dtype).removeprefix("torch.")
        raise SafetyHeadsError(
            f"In {dtype}, {type(model).__name__} computes values that are not numbers (NaN). Set its `dtype` to "
            "bfloat16 or float32. If it is one of these already, its weights are damaged."
        )
