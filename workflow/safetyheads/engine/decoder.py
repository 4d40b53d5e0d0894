"""What passes need to know of a model, whatever its family: its grid of heads, its layers, its final norm."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from safetyheads.engine.ablation import States, exchange
from safetyheads.engine.supported_families import SUPPORTED
from safetyheads.errors import SafetyHeadsError


class Decoder(NamedTuple):
    """The stack of decoder layers and the norm between its last layer and the output layer."""

    layers: nn.ModuleList
    norm: nn.Module
    returns_tuples: bool  # a layer's hidden states are the first of a tuple


def grid(model: PreTrainedModel) -> tuple[int, int]:
    """(layers, query heads per layer) of a model."""
    config = model.config.get_text_config(decoder=True)
    return config.num_hidden_layers, config.num_attention_heads


def input_device(model: PreTrainedModel) -> torch.device:
    """The device that a model's inputs go to and its logits come from.

    A model that is spread over several devices has it from accelerate's hook: its own `device` may be that of weights
    that are not loaded, `meta`.
    """
    hook = getattr(model, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def decoder(model: PreTrainedModel) -> Decoder:
    """The layers and the final norm of a model that is installed for ablation, found by watching one forward pass.

    Families name them in different ways, but all run them in the same order. Raises SafetyHeadsError unless there is
    one stack of layers, each of which attends once, with all its heads, through the attention interface, and one norm
    behind them.
    """
    name, (layers, _) = type(model).__name__, grid(model)
    seen: list[tuple[nn.Module, int]] = []  # attention modules and their number of heads, in the order of the pass
    called: list[nn.Module] = []
    tuples: set[nn.Module] = set()  # modules that return one

    def watch(module: nn.Module, *states: Tensor) -> States:  # query (1, N, 1, d), key and value (1, N_kv, 1, d)
        seen.append((module, states[0].shape[1]))
        return states  # type: ignore[return-value]

    def note(module: nn.Module, _: Any, output: Any) -> None:
        called.append(module)
        if isinstance(output, tuple):
            tuples.add(module)

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_hook(note).remove)
        hooks.enter_context(exchange(watch))
        hooks.enter_context(torch.inference_mode())
        model(torch.zeros(1, 1, dtype=torch.long, device=input_device(model)), use_cache=False)
    attending = {module for module, _ in seen}
    stacks = [
        (parent, child)
        for parent in model.modules()
        for child in parent.children()
        if isinstance(child, nn.ModuleList) and len(child) == layers and not attending.isdisjoint(child.modules())
    ]
    if len(stacks) != 1:
        raise SafetyHeadsError(f"{name} has {len(stacks)} stacks of {layers} attention layers; one is supported.")
    parent, stack = stacks[0]
    _check_heads(model, stack, seen)
    last = len(called) - 1 - called[::-1].index(stack[-1])
    norms = [module for module in called[last:] if module is not stack and module in set(parent.children())]
    if len(norms) != 1:
        raise SafetyHeadsError(f"{name} has no single norm behind its last layer. {SUPPORTED}")
    return Decoder(stack, norms[0], stack[0] in tuples)


def _check_heads(model: PreTrainedModel, stack: nn.ModuleList, seen: list[tuple[nn.Module, int]]) -> None:
    """Raise SafetyHeadsError unless the layers of the stack, in turn, attended once each with all heads of the grid."""
    name, (_, heads) = type(model).__name__, grid(model)
    for index, layer in enumerate(stack):
        inside = set(layer.modules())
        own = [(module, found) for module, found in seen if module in inside]
        if len(own) != 1:
            raise SafetyHeadsError(
                f"{name}: layer {index} ({type(layer).__name__}) comes to the attention interface {len(own)} times in "
                f"a pass; it must do so once, for its heads to be ablated. {SUPPORTED}"
            )
        ((module, found),) = own
        if found != heads or getattr(module, "layer_idx", None) != index:
            raise SafetyHeadsError(
                f"{name}: layer {index} ({type(layer).__name__}) attends with {found} heads, as layer "
                f"{getattr(module, 'layer_idx', None)}; its config.json says {heads} heads in every layer. {SUPPORTED}"
            )
    if len(seen) != len(stack):
        raise SafetyHeadsError(f"{name} attends outside its {len(stack)} layers, too. {SUPPORTED}")


def cache_argument(model: PreTrainedModel) -> str:
    """What the model's forward calls its cache: `cache` since transformers 5.24, before that `past_key_values`."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def in_float32(model: PreTrainedModel) -> None:
    """Compute the final norm and the output layer of a 16-bit model in float32.

    Scores compare logits closely, and logits that were computed in 16 bits are rounded too coarsely for that. The
    output layer's weights stay in 16 bits and are upcast piece by piece, because with a large vocabulary they are a
    large part of the model.
    """
    norm, output = decoder(model).norm, model.get_output_embeddings()  # type: ignore[no-untyped-call]
    norm.float()
    norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
    _replace_forward(output, partial(_linear_in_float32, output))


_PIECES, _SMALLEST = 64, 2**20
"""In how many pieces the output layer's weights are upcast, and how many weights a piece has at least."""


def _linear_in_float32(layer: nn.Linear, states: Tensor) -> Tensor:
    """The logits (..., vocabulary) of states (..., d_model), in float32."""
    weights = max(_SMALLEST, layer.weight.numel() // _PIECES)
    pieces = torch.split(layer.weight, max(1, weights // layer.in_features))  # (some of the vocabulary, d_model) each
    logits = torch.cat([functional.linear(states.float(), piece.float()) for piece in pieces], dim=-1)
    return logits if layer.bias is None else logits + layer.bias.float()


def _replace_forward(module: nn.Module, forward: Callable[..., Tensor]) -> None:
    """Let a module compute `forward` for good.

    Where accelerate brings the module's weights to their device, its hook wraps the forward: it is put around the new
    one.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is None:
        module.forward = forward
        return
    remove_hook_from_module(module)
    module.forward = forward
    add_hook_to_module(module, hook)


def check_numbers(model: PreTrainedModel, *states: Tensor) -> None:
    """Raise SafetyHeadsError if states of any shape have NaN: a pass has left the range of the model's dtype."""
    if any(bool(state.isnan().any()) for state in states):
        dtype = str(model.dtype).removeprefix("torch.")
        raise SafetyHeadsError(
            f"In {dtype}, {type(model).__name__} computes values that are not numbers (NaN). Set its `dtype` to "
            "bfloat16 or float32. If it is one of these already, its weights are damaged."
        )
