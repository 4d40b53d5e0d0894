"""Forward passes that compute only what an ablation changes.

Ablating heads of layer l leaves everything below layer l as it was. So one pass over the prompts keeps each layer's
input, and every ablated row resumes at its own layer. All of it works through the model's own forward, which makes its
masks and positions itself; `PartialForward.check` compares both on the loaded model, with one prompt.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from functools import partial
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.engine.decoder import cache_argument, check_numbers, decoder, grid, input_device
from safetyheads.engine.layer_shortcuts import Forward, Inputs, last_position, replaced, resumed, shared
from safetyheads.heads import Ablation, Head, HeadSet, Kind

log = logging.getLogger(__name__)

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
"""What rounding may change, as a share of the largest value, when the same pass is computed in another way."""


class Shortcut(IntEnum):
    """What a pass leaves out; each level includes the one before."""

    NONE = 0
    """Nothing: every row is a whole pass."""
    RESUME = 1
    """The layers below the ablated one."""
    SPLIT = 2
    """Projections that the rows of a prompt share; the last layer's work at positions whose output nobody needs."""


class Top(NamedTuple):
    """The last position of R rows, in float32."""

    residual: Tensor  # (R, d_model): the residual stream, before the final norm
    final_norm: Tensor  # (R, d_model)
    logits: Tensor  # (R, vocabulary)


class Kept(NamedTuple):
    """A pass over P prompts that can be resumed at some layers."""

    ids: Tensor  # (P, T): token ids
    inputs: dict[int, Tensor]  # of these layers, (P, T, d_model)
    top: Top


class PartialForward:
    """Passes, whole and resumed, of one model that is installed for ablation. Prompts have one length, no padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.shortcut = model, Shortcut.SPLIT
        self.layers, self.norm = decoder(model)
        self.output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.returns_tuples = False  # the layers; `keep` sees it
        self.checked = False

    @torch.inference_mode()
    def whole(
        self, ids: Tensor, ablation: Ablation | None, head_sets: Sequence[HeadSet], cache: Cache | None = None
    ) -> Top:
        """Run every prompt of token ids (R, T) with its own head set ablated. Fills `cache`."""
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
    ) -> Kept:
        """Run all prompts (P, T) with the same heads ablated, and keep the inputs of `layers`. Fills `cache`."""
        inputs: dict[int, Tensor] = {}

        def keep_input(at: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            inputs[at] = args[0] if args else kwargs["hidden_states"]
            self.returns_tuples = isinstance(output, tuple)

        with ExitStack() as hooks:
            for at in layers if self.shortcut else ():
                hook = self.layers[at].register_forward_hook(partial(keep_input, at), with_kwargs=True)
                hooks.callback(hook.remove)
            return Kept(ids, inputs, self.whole(ids, ablation, [heads] * len(ids), cache))

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
        """Run prompt `chosen[r]` with `head_sets[r]` ablated, from `layer` on.

        Below `layer` every head set must be what was ablated in `kept`. Fills `cache` above `layer`; up to it, the keys
        and values are those of the pass that was kept.
        """
        rows = torch.tensor(chosen, dtype=torch.long, device=kept.ids.device)
        forwards: dict[int, Forward] = {}
        if self.shortcut:
            inputs = Inputs(kept.inputs[layer], rows.to(kept.inputs[layer].device))
            forwards = dict.fromkeys(range(layer), self._skip)
            split = self.shortcut is Shortcut.SPLIT
            if split and layer == len(self.layers) - 1:
                forwards[layer] = last_position(self.layers[layer], inputs)
            else:
                forwards[layer] = (shared if split else resumed)(self.layers[layer], inputs)
        with ablate(self.model, ablation, head_sets), self._replaced(forwards):
            return self._run(kept.ids[rows], cache)

    def _run(self, ids: Tensor, cache: Cache | None) -> Top:
        states: tuple[Tensor, ...] = ()

        def keep_states(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal states  # of the last call: some models have the norm at the beginning, too
            states = (inputs[0][:, -1].clone(), output[:, -1].clone())  # not a view of all positions

        with ExitStack() as hooks:
            hooks.callback(self.norm.register_forward_hook(keep_states).remove)
            # A slice of many positions would be multiplied row by row.
            hooks.callback(self.output.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),)).remove)
            kwargs: dict[str, Any] = {cache_argument(self.model): cache} if cache is not None else {}
            logits = self.model(ids, use_cache=cache is not None, logits_to_keep=1, **kwargs).logits
        check_numbers(self.model, *states, logits)
        return Top(*(state.float() for state in (*states, logits[:, -1])))

    @contextmanager
    def _replaced(self, forwards: dict[int, Forward]) -> Iterator[None]:
        """Within the block, layers compute these forwards; the last one computes its last position alone."""
        last = len(self.layers) - 1
        if self.shortcut is Shortcut.SPLIT:
            forwards = {last: last_position(self.layers[last]), **forwards}
        with ExitStack() as stack:
            for layer, forward in forwards.items():
                stack.enter_context(replaced(self.layers[layer], forward))
            yield

    def _skip(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden_states,) if self.returns_tuples else hidden_states

    def check(self, prompt: Sequence[int]) -> None:
        """Compare passes over `prompt` with plain whole ones, once; give up shortcuts that differ, with a warning.

        In the last layer and in one of every kind, from the middle on if it is there, all heads are ablated, so that
        the ablation's own effect stands out from rounding.
        """
        if self.checked:
            return
        self.checked = True
        layers, heads = grid(self.model)
        kinds: dict[tuple[str, str], int] = {}
        for layer in (*range(layers // 2, layers - 1), *reversed(range(layers // 2))):
            kinds.setdefault(_kind(self.model, self.layers, layer), layer)
        sets = [tuple(Head(layer, head) for head in range(heads)) for layer in sorted({*kinds.values(), layers - 1})]
        ids = torch.tensor([list(prompt)], device=input_device(self.model))
        self.shortcut = Shortcut.NONE
        plain, *ablated = [self.whole(ids, CHECKED, [heads]) for heads in ((), *sets)]
        for level in (Shortcut.SPLIT, Shortcut.RESUME):
            self.shortcut = level
            difference = self._difference(ids, plain, dict(zip(sets, ablated)))
            if difference is None:
                return
            log.warning("%s, shortcut %s: %s. It is left out.", type(self.model).__name__, level.name, difference)
        self.shortcut = Shortcut.NONE

    @property
    def tolerance(self) -> float:
        """What checks allow, as a share of the largest value."""
        tolerance = TOLERANCE.get(self.model.dtype, TOLERANCE[torch.float32])
        if input_device(self.model).type == "cuda" and torch.get_float32_matmul_precision() != "highest":  # TF32
            tolerance = max(tolerance, TOLERANCE[torch.float16])
        return tolerance

    def _difference(self, ids: Tensor, plain: Top, ablated: Mapping[HeadSet, Top]) -> str | None:
        """How passes with the present shortcut differ from what is expected, with nothing and with sets ablated."""
        try:
            kept = self.keep(ids, None, layers=[heads[0].layer for heads in ablated])
            found = [self.resume(kept, [0, 0], heads[0].layer, CHECKED, [(), heads]) for heads in ablated]
        except Exception as error:  # a family that works in another way may fail anywhere in its own code
            return f"{type(error).__name__}: {str(error).rstrip('.')}"
        for rows, (heads, top) in zip(found, ablated.items()):
            for row, expected in enumerate((plain, top)):
                for name, ours, theirs in zip(Top._fields, rows, expected):
                    difference = off(ours[row], theirs[0])
                    if not difference <= self.tolerance:
                        layer = heads[0].layer
                        return f"resumed at layer {layer}, {name} is off by {difference:.1e} of its largest value"
        return None


CHECKED = Ablation(Kind.SCALING)
"""The ablation that checks of shortcuts use."""


def off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the largest value. Tokens that a model forbids have logits of -inf."""
    finite = theirs.isfinite()
    if not torch.equal(ours[~finite], theirs[~finite]):
        return inf
    difference = (ours - theirs)[finite].abs().max()
    return float(difference / theirs[finite].abs().max()) if difference else 0.0


def _kind(model: PreTrainedModel, layers: nn.ModuleList, layer: int) -> tuple[str, str]:
    """What a layer is made of, and its kind of attention where the model has several."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    return repr(layers[layer]), kinds[layer] if kinds else ""
