"""Forward passes that compute only what an ablation changes.

Ablating a head of layer l leaves everything below layer l as it was. So one pass over the prompts keeps the input of
each layer, and every ablated row resumes from there at its own layer:

                    layer 0   layer 1   layer 2   layer 3   logits
    kept pass       computes  computes  computes  computes    yes
    L00H02          computes  computes  computes  computes    yes
    L02H05                              computes  computes    yes     fed with the input of layer 2 that was kept

With as many heads in each layer, half of the work is gone. The model's own forward still runs, with layers replaced
(see `layer_shortcuts`): it makes masks and positions as its family does. `self_checks` compares such passes with plain
ones on the loaded model.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.engine.decoder import cache_argument, check_numbers, decoder
from safetyheads.engine.layer_shortcuts import Forward, Inputs, last_position, replaced, resumed, shared
from safetyheads.engine.positions import relax, stretching_ropes
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, HeadSet


class Shortcut(IntEnum):
    """What a pass leaves out. Each level leaves out what the one before does, and more."""

    NONE = 0
    """Nothing: every row is a whole pass."""
    RESUME = 1
    """The layers below the ablated one."""
    SPLIT = 2
    """Projections that are the same for all rows of a prompt, and the last layer's work at all but one position."""
    PREFIX = 3
    """What all prompts begin with, for all of a head set's prompts but one: see `shared_prefix`."""


class Top(NamedTuple):
    """What R rows have at their last position, in float32."""

    residual: Tensor  # (R, d_model): the residual stream, before the final norm
    final_norm: Tensor  # (R, d_model)
    logits: Tensor  # (R, vocabulary)


class Kept(NamedTuple):
    """What is kept of a pass over P prompts, so that others can resume from it."""

    ids: Tensor  # (P, T): token ids
    inputs: dict[int, Tensor]  # of the layers that it can be resumed at, (P, T, d_model)


class _Arrived(Exception):
    """The pass has come to the layer that it was run for, and need not go on."""


class PartialForward:
    """Passes, whole and resumed, of one model that is installed for ablation.

    All prompts of a pass have one length, so there is no padding. Where a pass is given a cache, it fills it, or reads
    what stands before the prompts in a `PrefixCache`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.shortcut = model, Shortcut.SPLIT
        self.layers, self.norm, self.returns_tuples = decoder(model)
        self.output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.stretching = stretching_ropes(model)
        self.checked = False  # by `self_checks`, which gives up shortcuts that do not work

    @torch.inference_mode()
    def whole(
        self, ids: Tensor, ablation: Ablation | None, head_sets: Sequence[HeadSet], cache: Cache | None = None
    ) -> Top:
        """Run R prompts of token ids (R, T), each with its own head set ablated."""
        with ablate(self.model, ablation, head_sets), self._replaced({}):
            return self._run(ids, cache)

    @torch.inference_mode()
    def keep(
        self,
        ids: Tensor,
        ablation: Ablation | None,
        heads: HeadSet = (),
        cache: Cache | None = None,
        *,
        layers: Collection[int],
    ) -> tuple[Kept, Top]:
        """Run P prompts of token ids (P, T) with the same heads ablated, and keep the inputs of `layers`."""
        inputs: dict[int, Tensor] = {}
        with self._watching(layers, inputs.__setitem__):
            return Kept(ids, inputs), self.whole(ids, ablation, [heads] * len(ids), cache)

    @torch.inference_mode()
    def keep_up_to(
        self,
        ids: Tensor,
        ablation: Ablation | None,
        heads: HeadSet,
        layer: int,
        cache: Cache | None = None,
        below: Kept | None = None,
    ) -> Kept:
        """Run P prompts of token ids (P, T) with the same heads ablated, as far as the input of `layer`; keep that.

        With `below`, what such a pass kept of one lower layer, it goes on from there. Raises SafetyHeadsError if that
        is a higher one. Without shortcuts nothing is run: every row is a whole pass then, and resumes nowhere.
        """
        inputs: dict[int, Tensor] = {}

        def stop(at: int, states: Tensor) -> None:
            inputs[at] = states
            raise _Arrived

        if self.shortcut:
            forwards: dict[int, Forward] = {}
            if below:
                ((start, states),) = below.inputs.items()
                if start > layer:
                    raise SafetyHeadsError(f"A pass that was kept at layer {start} cannot go down to layer {layer}.")
                same = Inputs(states, torch.arange(len(states), device=states.device))
                forwards = dict.fromkeys(range(start), self._skip) | {start: resumed(self.layers[start], same)}
            hooked, rows = self._watching([layer], stop), ablate(self.model, ablation, [heads] * len(ids))
            with suppress(_Arrived), hooked, rows, self._replaced(forwards):
                self._run(ids, cache)
        return Kept(ids, inputs)

    @contextmanager
    def _watching(self, layers: Collection[int], seen: Callable[[int, Tensor], None]) -> Iterator[None]:
        """Within the block, call `seen` with a layer and its input (P, T, d_model) whenever one of `layers` runs."""

        def see(at: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen(at, args[0] if args else kwargs["hidden_states"])

        with ExitStack() as hooks:
            for at in layers if self.shortcut else ():
                hook = self.layers[at].register_forward_pre_hook(partial(see, at), with_kwargs=True)
                hooks.callback(hook.remove)
            yield

    @torch.inference_mode()
    def resume(
        self,
        kept: Kept,
        chosen: Sequence[int],
        layer: int,
        ablation: Ablation | None,
        head_sets: Sequence[HeadSet],
        cache: Cache | None = None,
    ) -> Top:
        """Run R rows from `layer` on: row r is prompt `chosen[r]`, with `head_sets[r]` ablated.

        Below `layer`, every head set must have the heads that were ablated in the pass that was kept. The cache is
        filled above `layer` only: up to there, keys and values are those of that pass.
        """
        rows = torch.tensor(chosen, dtype=torch.long, device=kept.ids.device)  # (R,)
        forwards: dict[int, Forward] = {}
        if self.shortcut:
            inputs = Inputs(kept.inputs[layer], rows.to(kept.inputs[layer].device))
            forwards = dict.fromkeys(range(layer), self._skip)
            split = self.shortcut >= Shortcut.SPLIT
            if split and layer == len(self.layers) - 1:
                forwards[layer] = last_position(self.layers[layer], inputs)
            else:
                forwards[layer] = (shared if split else resumed)(self.layers[layer], inputs)
        with ablate(self.model, ablation, head_sets), self._replaced(forwards):
            return self._run(kept.ids[rows], cache)

    def _run(self, ids: Tensor, cache: Cache | None) -> Top:
        """Run token ids (R, T) through the model as it is now, and take what is at the last position."""
        states: tuple[Tensor, ...] = ()
        relax(self.stretching)

        def keep_states(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal states  # of the last call: some models have the norm at the beginning, too
            states = (inputs[0][:, -1].clone(), output[:, -1].clone())  # a view would keep all positions in memory

        with ExitStack() as hooks:
            hooks.callback(self.norm.register_forward_hook(keep_states).remove)
            # The last positions are a slice of all, and torch would multiply such a slice row by row.
            hooks.callback(self.output.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),)).remove)
            kwargs: dict[str, Any] = {cache_argument(self.model): cache} if cache is not None else {}
            logits = self.model(ids, use_cache=cache is not None, logits_to_keep=1, **kwargs).logits
        check_numbers(self.model, *states, logits)
        return Top(*(state.float() for state in (*states, logits[:, -1])))

    @contextmanager
    def _replaced(self, forwards: dict[int, Forward]) -> Iterator[None]:
        """Within the block, layers compute these forwards, and the last layer its last position alone."""
        last = len(self.layers) - 1
        if self.shortcut >= Shortcut.SPLIT:
            forwards = {last: last_position(self.layers[last]), **forwards}
        with ExitStack() as stack:
            for layer, forward in forwards.items():
                stack.enter_context(replaced(self.layers[layer], forward))
            yield

    def _skip(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        """The forward of a layer that computes nothing, and returns what it is fed (R, T, d_model)."""
        return (hidden_states,) if self.returns_tuples else hidden_states
