"""Checks on the loaded model: every shortcut is tried once, and left out where it changes the numbers.

Shortcuts assume how a family's code works: that a layer needs only its input, that positions meet nowhere but in
attention, that padding is not seen. No list of families can promise that. So each assumption is tried on the model
itself, with a prompt or two of its job, before any number is made.
"""

import logging
from collections.abc import Mapping, Sequence
from math import inf

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.kv_cache import takes_fewer_rows
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.engine.prefill import next_logits, prefill
from safetyheads.engine.shared_rows import Followers
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind

log = logging.getLogger(__name__)

_ABLATION = Ablation(Kind.SCALING)
_TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
_FOLLOWED_TOKENS = 8  # a short prompt is enough to see whether rows can follow others


def check_shortcuts(passes: PartialForward, prompt: Sequence[int]) -> None:
    """Compare passes over `prompt` (token ids) with plain whole ones; lower `passes.shortcut` where they differ.

    A shortcut that is left out is named in a warning. Later calls do nothing. Tried are the last layer and one layer of
    every kind, from the middle of the model on if there is one. All heads of the layer are ablated, so that the
    ablation's own effect stands out from rounding.
    """
    if passes.checked:
        return
    passes.checked = True
    layers, heads = grid(passes.model)
    kinds: dict[tuple[str, str], int] = {}
    for layer in (*range(layers // 2, layers - 1), *reversed(range(layers // 2))):
        kinds.setdefault(_kind(passes.model, passes.layers, layer), layer)
    sets = [tuple(Head(layer, head) for head in range(heads)) for layer in sorted({*kinds.values(), layers - 1})]
    ids = torch.tensor([list(prompt)], device=input_device(passes.model))  # (1, T)
    passes.shortcut = Shortcut.NONE
    plain, *ablated = [passes.whole(ids, _ABLATION, [heads]) for heads in ((), *sets)]
    for level in (Shortcut.SPLIT, Shortcut.RESUME):
        passes.shortcut = level
        problem = _problem_of_resuming(passes, ids, plain, dict(zip(sets, ablated)))
        if problem is None:
            return
        _left_out(passes, level.name, problem)
    passes.shortcut = Shortcut.NONE


def _problem_of_resuming(
    passes: PartialForward,
    ids: Tensor,  # (1, T)
    plain: Top,
    ablated: Mapping[HeadSet, Top],
) -> str | None:
    """How passes with the present shortcut differ from the plain and the ablated tops that whole passes gave."""
    try:
        kept, _ = passes.keep(ids, None, layers=[heads[0].layer for heads in ablated])
        found = [passes.resume(kept, [0, 0], heads[0].layer, _ABLATION, [(), heads]) for heads in ablated]
    except Exception as error:  # a family that works in another way may fail anywhere in its own code
        return _failure(error)
    for rows, (heads, top) in zip(found, ablated.items()):
        for row, expected in enumerate((plain, top)):
            for name, ours, theirs in zip(Top._fields, rows, expected):
                difference = relative_difference(ours[row], theirs[0])
                if not difference <= tolerance(passes.model):
                    layer = heads[0].layer
                    return f"resumed at layer {layer}, {name} is off by {difference:.1e} of its largest value"
    return None


@torch.inference_mode()
def check_padding(passes: PartialForward, *prompts: Sequence[int]) -> None:
    """Raise SafetyHeadsError if prompts that share a batch, padded, go on in another way than each one on its own.

    In 16 bits it is a warning, because rounding alone may send a token to other experts.
    """
    rows, device = [(*ids, ids[-1]) for ids in prompts], input_device(passes.model)
    expected = [passes.whole(torch.tensor([ids], device=device), None, [()]).logits[0] for ids in rows]  # (vocabulary,)
    width, count = max(map(len, prompts)), len(prompts)
    _, cache = prefill(passes, list(map(tuple, prompts)), [()] * count, None, 1, starts=[0] * count)
    visible = torch.tensor([[at >= width - len(ids) for at in range(width)] for ids in prompts]).long()  # (B, T)
    last = torch.tensor([ids[-1] for ids in rows], device=device)  # (B,)
    found, _ = next_logits(passes.model, last, visible.to(device), cache)  # (B, vocabulary)
    worst = max(relative_difference(ours, theirs) for ours, theirs in zip(found.float(), expected))
    if not worst <= tolerance(passes.model):
        found_out = (
            f"{type(passes.model).__name__} goes on in another way where prompts of different lengths share a batch: "
            f"logits are off by {worst:.1e} of the largest one."
        )
        if passes.model.dtype == torch.float32:
            raise SafetyHeadsError(f"{found_out} Completions of such models are not supported; scores are.")
        log.warning("%s In 16 bits that may be rounding (experts change with it); try `dtype: float32`.", found_out)


@torch.inference_mode()
def may_follow(passes: PartialForward, prompt: Sequence[int]) -> bool:
    """Whether rows of a batch can follow others in this model (see `shared_rows`).

    One token is generated with and without; where the results differ, a warning says so.
    """
    layers, heads = grid(passes.model)
    sets = [(), *(tuple(Head(layer, head) for head in range(heads)) for layer in sorted({layers // 2, layers - 1}))]
    ids = (*prompt[-_FOLLOWED_TOKENS:], prompt[-1])
    if not passes.shortcut or not takes_fewer_rows(passes.model, len(ids)):
        return False
    batch, device = Followers([0] * len(sets), sets, layers), input_device(passes.model)
    sets, prompts = [sets[like] for like in batch.like], [ids[:-1]] * len(sets)
    expected = passes.whole(torch.tensor([ids] * len(sets), device=device), _ABLATION, sets).logits  # (B, vocabulary)
    try:
        _, cache = prefill(passes, prompts, sets, _ABLATION, 1, batch.starts.tolist())
        with ablate(passes.model, _ABLATION, sets) as ablated, batch.left_out(passes.layers):
            if ablated is not None:
                ablated.computed = batch.computed
            tokens = torch.tensor(prompts, device=device)  # (B, T)
            last = torch.full_like(tokens[:, 0], ids[-1])  # (B,)
            found, _ = next_logits(passes.model, last, torch.ones_like(tokens), cache)
        worst = max(relative_difference(ours, theirs) for ours, theirs in zip(found.float(), expected))
        problem = None if worst <= tolerance(passes.model) else f"logits are off by {worst:.1e} of the largest one"
    except Exception as error:  # a family that works in another way may fail anywhere in its own code
        problem = _failure(error)
    if problem:
        _left_out(passes, "FOLLOW", problem)
    return problem is None


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


def _failure(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).rstrip('.')}"


def _left_out(passes: PartialForward, shortcut: str, problem: str) -> None:
    log.warning("%s, shortcut %s: %s. It is left out.", type(passes.model).__name__, shortcut, problem)
