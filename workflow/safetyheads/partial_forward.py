"""Forward passes that compute only what an ablation changes.

Ablating heads of layer l leaves everything below layer l as it was. So one pass over the prompts keeps each layer's
input, and every ablated row resumes at its own layer. All of it works through the model's own forward, which makes its
masks and positions itself; `PartialForward.check` compares both on the loaded model, with one prompt.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from safetyheads.ablation import Ablation, Kind, ablate
from safetyheads.decoder import check_numbers, decoder, grid
from safetyheads.heads import Head, HeadSet
from safetyheads.layer_shortcuts import Forward, Inputs, last_position, replaced, resumed, shared

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


class Prompts(NamedTuple):
    """Token ids of P prompts (P, T); `visible` (P, T) is 1 where they are not padded on the left, or None."""

    ids: Tensor
    visible: Tensor | None = None

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], width: int, device: torch.device) -> "Prompts":
        """Prompts of at most `width` tokens, padded to it."""
        padding = [width - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * missing + list(prompt) for missing, prompt in zip(padding, prompts)], device=device)
        visible = torch.arange(width, device=device) >= torch.tensor(padding, device=device)[:, None]
        return cls(ids, visible.long() if any(padding) else None)

    def rows(self, chosen: Tensor) -> "Prompts":
        """These prompts, by index (R,)."""
        return Prompts(self.ids[chosen], None if self.visible is None else self.visible[chosen])


class Kept(NamedTuple):
    """A pass over P prompts that can be resumed at any layer."""

    prompts: Prompts
    inputs: list[Tensor]  # of each layer, (P, T, d_model)
    top: Top


class PartialForward:
    """Passes, whole and resumed, of one model that is installed for ablation."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.shortcut = model, Shortcut.SPLIT
        self.layers, self.norm = decoder(model)
        self.output = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.returns_tuples = False  # the layers; `keep` sees it

    @torch.inference_mode()
    def whole(
        self, prompts: Prompts, ablation: Ablation | None, head_sets: Sequence[HeadSet], cache: Cache | None = None
    ) -> Top:
        """Run every prompt with its own head set ablated. Fills `cache`."""
        with ablate(self.model, ablation, head_sets), self._replaced({}):
            return self._run(prompts, cache)

    @torch.inference_mode()
    def keep(
        self, prompts: Prompts, ablation: Ablation | None, heads: HeadSet = (), cache: Cache | None = None
    ) -> Kept:
        """Run all prompts with the same heads ablated, and keep every layer's input. Fills `cache`."""
        inputs: list[Tensor] = []

        def keep_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            inputs.append(args[0] if args else kwargs["hidden_states"])
            self.returns_tuples = isinstance(output, tuple)

        with ExitStack() as hooks:
            for layer in self.layers if self.shortcut else ():
                hooks.callback(layer.register_forward_hook(keep_input, with_kwargs=True).remove)
            return Kept(prompts, inputs, self.whole(prompts, ablation, [heads] * len(prompts.ids), cache))

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
        rows = torch.tensor(chosen, dtype=torch.long, device=kept.prompts.ids.device)
        forwards: dict[int, Forward] = {}
        if self.shortcut:
            inputs = Inputs(kept.inputs[layer], rows)
            forwards = dict.fromkeys(range(layer), self._skip)
            split = self.shortcut is Shortcut.SPLIT
            if split and layer == len(self.layers) - 1:
                forwards[layer] = last_position(self.layers[layer], inputs)
            else:
                forwards[layer] = (shared if split else resumed)(self.layers[layer], inputs)
        with ablate(self.model, ablation, head_sets), self._replaced(forwards):
            return self._run(kept.prompts.rows(rows), cache)

    def _run(self, prompts: Prompts, cache: Cache | None) -> Top:
        states: list[Tensor] = []

        def keep_states(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            states.extend((inputs[0][:, -1].clone(), output[:, -1].clone()))  # not a view of all positions

        padding = {}
        if prompts.visible is not None:
            positions = (prompts.visible.cumsum(dim=1) - 1).clamp_min(0)
            padding = {"attention_mask": prompts.visible, "position_ids": positions}
        with ExitStack() as hooks:
            hooks.callback(self.norm.register_forward_hook(keep_states).remove)
            # A slice of many positions would be multiplied row by row.
            hooks.callback(self.output.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),)).remove)
            logits = self.model(
                prompts.ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=1, **padding
            ).logits
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
        """Compare passes over `prompt` with plain whole ones; give up the shortcuts that differ, with a warning.

        In the last layer, the middle one, and one of every kind, all heads are ablated, so that the ablation's own
        effect stands out from rounding.
        """
        layers, heads = grid(self.model)
        kinds = {_kind(self.model, self.layers, layer): layer for layer in range(layers - 1)}
        cases = [
            (layer, tuple(Head(layer, head) for head in range(heads)))
            for layer in sorted({*kinds.values(), layers // 2, layers - 1})
        ]
        prompts = Prompts.of([prompt], len(prompt), self.model.device)
        sets = [(), *(heads for _, heads in cases)]
        self.shortcut = Shortcut.NONE
        expected = self.whole(prompts.rows(torch.zeros(len(sets), dtype=torch.long)), _CHECKED, sets)
        for level in (Shortcut.SPLIT, Shortcut.RESUME):
            self.shortcut = level
            difference = self._difference(prompts, cases, expected)
            if difference is None:
                return
            log.warning("%s, shortcut %s: %s. It is left out.", type(self.model).__name__, level.name, difference)
        self.shortcut = Shortcut.NONE

    def _difference(self, prompts: Prompts, cases: Sequence[tuple[int, HeadSet]], expected: Top) -> str | None:
        """How passes with the present shortcut differ from what is expected, of the plain model and of the cases."""
        tolerance = TOLERANCE.get(self.model.dtype, TOLERANCE[torch.float32])
        if self.model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":  # TF32
            tolerance = max(tolerance, TOLERANCE[torch.float16])
        try:
            kept = self.keep(prompts, None)
            found = [self.resume(kept, [0, 0], layer, _CHECKED, [(), heads]) for layer, heads in cases]
        except Exception as error:  # a family that works in another way may fail anywhere in its own code
            if should_reduce_batch_size(error):
                raise
            return f"{type(error).__name__}: {str(error).rstrip('.')}"
        for case, ((layer, _), rows) in enumerate(zip(cases, found), start=1):
            for name, ours, theirs in zip(Top._fields, rows, expected):
                off = ((ours - theirs[[0, case]]).abs().amax(dim=1) / theirs[[0, case]].abs().amax(dim=1)).max()
                if not off <= tolerance:
                    return f"resumed at layer {layer}, {name} is off by {off:.1e} of its largest value"
        return None


_CHECKED = Ablation(Kind.SCALING)


def _kind(model: PreTrainedModel, layers: nn.ModuleList, layer: int) -> tuple[str, str]:
    """What a layer is made of, and its kind of attention where the model has several."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    return repr(layers[layer]), kinds[layer] if kinds else ""
