"""Forwards that compute a part of a decoder layer.

Each takes the place of a layer's own forward for the time of one pass, and calls that for whatever is left to compute.
So no family's layer is written anew here. Where a layer must be taken apart, the cut is made at the attention
interface, because every supported family goes through it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.pytorch_utils import Conv1D

from safetyheads.engine.ablation import States, exchange
from safetyheads.engine.prefix_cache import PrefixCache
from safetyheads.errors import SafetyHeadsError

Forward = Callable[..., Any]


class Inputs(NamedTuple):
    """What an earlier pass over P prompts fed into a layer, and which prompt each of R rows goes on from."""

    states: Tensor  # (P, T, d_model)
    prompts: Tensor  # (R,)


@contextmanager
def replaced(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Let `module` compute `forward` instead of its own forward within the block."""
    attribute = module.__dict__.get("forward")  # set by libraries that wrap modules; most have the method alone
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if attribute is not None:
            module.forward = attribute


def resumed(layer: nn.Module, inputs: Inputs) -> Forward:
    """The layer, fed with `inputs` whatever the pass brings."""
    forward = layer.forward
    return lambda _, *args, **kwargs: forward(inputs.states[inputs.prompts], *args, **kwargs)


def shared(layer: nn.Module, inputs: Inputs) -> Forward:
    """The layer, fed with `inputs`, that computes queries, keys and values once for each prompt, not for each row.

    Ablation comes after them, so they are the same for all rows of a prompt. The layer is run twice. The first run has
    the P prompts, and ends at the attention. The second has the R rows: there the projections cost nothing, and the
    attention gets the states of the first run. Keys and values do not go into a cache.
    """
    forward = layer.forward

    def run(_: Tensor, *args: Any, **kwargs: Any) -> Any:
        states, projections = _attended(layer, forward, inputs, *_each(_reading, args, kwargs))
        args, kwargs = _each(_without_cache, args, kwargs)
        with ExitStack() as stack:
            stack.enter_context(exchange(lambda *_: _once(states)))
            for projection, width in projections.items():
                stack.enter_context(replaced(projection, _nothing(width)))
            return forward(inputs.states[inputs.prompts], *args, **kwargs)

    return run


def last_position(layer: nn.Module, inputs: Inputs | None = None) -> Forward:
    """The last layer, computed at the last position alone: nobody needs the others, except for their keys and values.

    It returns that position's output at every position (R, T, d_model), as a view, because the model expects so many.
    It is fed with `inputs`, if given. If not, it is fed with what the pass brings, and keys and values go into the
    cache.
    """
    forward = layer.forward

    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # (R, T, d_model)
        length = hidden_states.shape[1]
        if inputs is not None:
            args, kwargs = _each(_reading, args, kwargs)
            last = inputs.states[:, -1:][inputs.prompts]  # (R, 1, d_model)
        else:
            last = hidden_states[:, -1:]
        ((_, keys, values),), _ = _attended(layer, forward, inputs or hidden_states, args, kwargs)
        args, kwargs = _each(lambda value: _without_cache(_at_the_end(value, length)), args, kwargs)
        with exchange(lambda _, query, *__: (query, keys, values)):
            output = forward(last, *args, **kwargs)
        if isinstance(output, tuple):
            return output[0].expand(-1, length, -1), *output[1:]
        return output.expand(-1, length, -1)

    return run


def leading(layer: nn.Module, rows: Callable[[], tuple[int, Tensor]]) -> Forward:
    """The layer for the first rows of a batch alone.

    `rows()` says how many they are, and whose result each of the B rows of the batch gets (B,).
    """
    forward = layer.forward

    def run(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:  # (B, T, d_model)
        everything, (count, standing_for) = len(hidden_states), rows()
        if count == everything:
            return forward(hidden_states, *args, **kwargs)
        args, kwargs = _each(lambda value: _of_rows(value, everything, first=count), args, kwargs)
        output = forward(hidden_states[:count], *args, **kwargs)
        states = output[0] if isinstance(output, tuple) else output
        states = states[standing_for.to(states.device)]  # a layer may be on another device than its input
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return run


class _Reached(Exception):
    """The layer has come to its attention: what it was run for is there, and it need not go on."""

    def __init__(self, module: nn.Module, states: States) -> None:
        self.module, self.states = module, states


def _attended(
    layer: nn.Module, forward: Forward, fed: Inputs | Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[States], dict[nn.Module, int]]:
    """Queries (R, N, T, d), keys and values (R, N_kv, T, d) of a layer, found by running it up to its attention.

    It is fed with `Inputs`, of which each prompt is computed once, or with hidden states (R, T, d_model). The states
    come in a list, to be taken once. Also returned are the attention's projections, with the width of their output.
    """
    widths: dict[nn.Module, int] = {}
    places = None
    if isinstance(fed, Inputs):
        rows = fed.prompts.tolist()
        used = sorted(set(rows))
        first = torch.tensor([rows.index(prompt) for prompt in used], device=fed.prompts.device)
        places = torch.tensor([used.index(prompt) for prompt in rows], device=fed.prompts.device)
        args, kwargs = _each(lambda value: _of_rows(value, len(rows), first), args, kwargs)
        fed = fed.states[fed.prompts[first]]

    def stop(module: nn.Module, *states: Tensor) -> States:
        raise _Reached(module, states)  # type: ignore[arg-type]

    def measure(projection: nn.Module, _: Any, output: Tensor) -> None:
        widths[projection] = output.shape[-1]

    with ExitStack() as stack:
        for module in layer.modules():
            if isinstance(module, nn.Linear | Conv1D):
                stack.callback(module.register_forward_hook(measure).remove)
        stack.enter_context(exchange(stop))
        try:
            forward(fed, *args, **kwargs)
        except _Reached as reached:
            query, key, value = reached.states
            inside = set(reached.module.modules())
        else:
            raise SafetyHeadsError(f"{type(layer).__name__} does not come to the attention interface.")
    if places is not None:
        query, key, value = (state[places.to(state.device)] for state in (query, key, value))
    states = (query, key, value)
    return [states], {module: width for module, width in widths.items() if module in inside}


def _once(states: list[States]) -> States:
    """The states, taken out of their list: the attention is the only one that holds their memory then."""
    if not states:
        raise SafetyHeadsError("a layer comes to the attention interface more than once")
    return states.pop()


def _nothing(width: int) -> Forward:
    """A projection whose output is not needed: zeros of its shape (..., width), as a view of `width` numbers."""
    return lambda hidden_states: hidden_states.new_zeros(width).expand(*hidden_states.shape[:-1], width)


def _each(
    change: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A layer's arguments, with `change` made to each of them and to each item of those that are tuples.

    Position embeddings, for example, are a tuple of cosines and sines.
    """

    def changed(value: Any) -> Any:
        return tuple(map(changed, value)) if isinstance(value, tuple | list) else change(value)

    return tuple(map(changed, args)), {name: changed(value) for name, value in kwargs.items()}


def _without_cache(value: Any) -> Any:
    """None instead of a cache, so that the layer leaves nothing there."""
    return None if isinstance(value, Cache) else value


def _reading(value: Any) -> Any:
    """None instead of a cache that the layer would add to; one that it only reads stays."""
    return value if isinstance(value, PrefixCache) else _without_cache(value)


def _of_rows(value: Any, rows: int, chosen: Tensor | None = None, *, first: int = 0) -> Any:
    """The rows `chosen` (C,), or the `first` ones, of an argument that has a row for each row of the batch.

    Masks and positions do, or they have a single row for all. What has no rows is returned as it is.
    """
    if not isinstance(value, Tensor) or value.dim() < 2 or not value.shape[0] == rows > 1:
        return value
    return value[:first] if chosen is None else value[chosen.to(value.device)]


def _at_the_end(value: Any, length: int) -> Any:
    """The last position of an argument that has all `length` of them; others are returned as they are.

    Those with positions are cache positions (T,), positions (R, T), position embeddings (R, T, d) and masks
    (R, N, T, S).
    """
    if not isinstance(value, Tensor) or value.dim() == 0:
        return value
    axis = {1: 0, 4: 2}.get(value.dim(), 1)
    return value.narrow(axis, length - 1, 1) if value.shape[axis] == length else value
