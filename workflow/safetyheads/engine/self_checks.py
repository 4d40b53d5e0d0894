"""Checks on the loaded model: every shortcut is tried once, and left out where it changes the numbers.

Shortcuts assume how a family's code works: that a layer needs only its input, that positions meet nowhere but in
attention. No list of families can promise that. So each assumption is tried on the model itself, with a prompt of its
job, before any number is made. What generation assumes besides is tried by `generation_checks`.
"""

import logging
from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.engine.shared_prefix import SharedPrefix
from safetyheads.heads import Ablation, Head, HeadSet, Kind

log = logging.getLogger(__name__)

CHECKED = Ablation(Kind.SCALING)
"""The ablation that checks use."""
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}


def check_shortcuts(passes: PartialForward, prompt: Sequence[int], highest: Shortcut = Shortcut.PREFIX) -> None:
    """Compare passes over `prompt` (token ids) with plain whole ones; lower `passes.shortcut` where they differ.

    A shortcut that is left out is named in a warning. Those above `highest`, which the job has no use for, are not
    tried. Later calls do nothing. Tried are the last layer and one layer of every kind, from the middle of the model on
    if there is one. All heads of the layer are ablated, so that the ablation's own effect stands out from rounding.
    """
    if passes.checked:
        return
    passes.shortcut = _that_works(passes, prompt, highest)
    passes.checked = True


def _that_works(passes: PartialForward, prompt: Sequence[int], highest: Shortcut) -> Shortcut:
    """The highest shortcut that changes no number."""
    layers, heads = grid(passes.model)
    kinds: dict[tuple[str, str], int] = {}
    for layer in (*range(layers // 2, layers - 1), *reversed(range(layers // 2))):
        kinds.setdefault(_kind(passes.model, passes.layers, layer), layer)
    sets = [tuple(Head(layer, head) for head in range(heads)) for layer in sorted({*kinds.values(), layers - 1})]
    ids = torch.tensor([list(prompt)], device=input_device(passes.model))  # (1, T)
    passes.shortcut = Shortcut.NONE
    plain, *ablated = [passes.whole(ids, CHECKED, [heads]) for heads in ((), *sets)]
    for level in range(highest, Shortcut.NONE, -1):
        passes.shortcut = Shortcut(level)
        problem = _problem_of_resuming(passes, ids, plain, dict(zip(sets, ablated)))
        if problem is None:
            return passes.shortcut
        leave_out(passes, passes.shortcut.name, problem)
    return Shortcut.NONE


def _problem_of_resuming(
    passes: PartialForward,
    ids: Tensor,  # (1, T)
    plain: Top,
    ablated: Mapping[HeadSet, Top],
) -> str | None:
    """How passes with the present shortcut differ from the plain and the ablated tops that whole passes gave."""
    try:
        if passes.shortcut is Shortcut.PREFIX and ids.shape[1] > 1:
            found = _after_a_prefix(passes, ids, list(ablated))
        else:
            kept, _ = passes.keep(ids, None, layers=[heads[0].layer for heads in ablated])
            found = [passes.resume(kept, [0, 0], heads[0].layer, CHECKED, [(), heads]) for heads in ablated]
    except Exception as error:  # a family that works in another way may fail anywhere in its own code
        return failure(error)
    for rows, (heads, top) in zip(found, ablated.items()):
        for row, expected in enumerate((plain, top)):
            for name, ours, theirs in zip(Top._fields, rows, expected):
                difference = relative_difference(ours[row], theirs[0])
                if not difference <= tolerance(passes.model):
                    layer = heads[0].layer
                    return f"resumed at layer {layer}, {name} is off by {difference:.1e} of its largest value"
    return None


def _after_a_prefix(passes: PartialForward, ids: Tensor, head_sets: Sequence[HeadSet]) -> list[Top]:
    """Tops of two rows of a prompt (1, T), plain and with each head set: its first half is run once for both."""
    half = ids.shape[1] // 2
    layers = [heads[0].layer for heads in head_sets]
    prefix = SharedPrefix(passes, ids[0, :half].tolist(), CHECKED, (), layers=layers)
    found = []
    for layer, heads in zip(layers, head_sets):
        kept = passes.keep_up_to(ids[:, half:], CHECKED, (), layer, prefix.cache())
        cache = prefix.cache(prefix.of_sets(layer, [(), heads]), [0, 1])
        found.append(passes.resume(kept, [0, 0], layer, CHECKED, [(), heads], cache))
    return found


def tolerance(model: PreTrainedModel) -> float:
    """What rounding may change when the same pass is computed in another way, as a share of the largest value."""
    allowed = _TOLERANCES.get(model.dtype, _TOLERANCES[torch.float32])
    if input_device(model).type == "cuda" and torch.get_float32_matmul_precision() != "highest":  # TF32
        allowed = max(allowed, _TOLERANCES[torch.float16])
    return allowed


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two tensors of one shape, as a share of the largest value.

    Infinite values must be the same: some models forbid tokens by logits of -inf.
    """
    finite = theirs.isfinite()
    if not torch.equal(ours[~finite], theirs[~finite]):
        return inf
    difference = (ours - theirs)[finite].abs().max()
    return float(difference / theirs[finite].abs().max()) if difference else 0.0


def _kind(model: PreTrainedModel, layers: nn.ModuleList, layer: int) -> tuple[str, str]:
    """What a layer is made of, and its kind of attention where the model has several."""
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    return repr(layers[layer]), kinds[layer] if kinds else ""


def failure(error: Exception) -> str:
    """An error of a family's own code, in words."""
    return f"{type(error).__name__}: {str(error).rstrip('.')}"


def leave_out(passes: PartialForward, shortcut: str, problem: str) -> None:
    """Tell that a shortcut is left out, and why."""
    log.warning("%s, shortcut %s: %s. It is left out.", type(passes.model).__name__, shortcut, problem)
