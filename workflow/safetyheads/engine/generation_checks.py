"""Checks on the loaded model of what generation assumes: padding is not seen, and rows may follow others.

They are apart from `self_checks`, because scoring needs neither a cache nor padding: a change here makes no score anew.
"""

import logging
from collections.abc import Sequence

import torch

from safetyheads.engine.ablation import ablate
from safetyheads.engine.decoder import grid, input_device
from safetyheads.engine.kv_cache import takes_fewer_rows
from safetyheads.engine.partial_forward import PartialForward
from safetyheads.engine.prefill import next_logits, prefill
from safetyheads.engine.self_checks import CHECKED, failure, leave_out, relative_difference, tolerance
from safetyheads.engine.shared_rows import Followers
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head

log = logging.getLogger(__name__)

_FOLLOWED_TOKENS = 8  # a short prompt is enough to see whether rows can follow others


@torch.inference_mode()
def check_padding(passes: PartialForward, *prompts: Sequence[int]) -> None:
    """Raise SafetyHeadsError if prompts that share a batch, padded, go on in another way than each one on its own.

    In 16 bits it is a warning, because rounding alone may send a token to other experts.
    """
    rows, device = [(*ids, ids[-1]) for ids in prompts], input_device(passes.model)
    expected = [passes.whole(torch.tensor([ids], device=device), None, [()]).logits[0] for ids in rows]  # (vocabulary,)
    width, count = max(map(len, prompts)), len(prompts)
    cache = prefill(passes, list(map(tuple, prompts)), [()] * count, None, 1, starts=[0] * count).cache
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
    sets, prompts = [sets[row] for row in batch.rows], [ids[:-1]] * len(sets)
    expected = passes.whole(torch.tensor([ids] * len(sets), device=device), CHECKED, sets).logits  # (B, vocabulary)
    try:
        cache = prefill(passes, prompts, sets, CHECKED, 1, batch.starts.tolist()).cache
        with ablate(passes.model, CHECKED, sets) as ablated, batch.left_out(passes.layers):
            if ablated is not None:
                ablated.computed = batch.computed
            tokens = torch.tensor(prompts, device=device)  # (B, T)
            last = torch.full_like(tokens[:, 0], ids[-1])  # (B,)
            found, _ = next_logits(passes.model, last, torch.ones_like(tokens), cache)
        worst = max(relative_difference(ours, theirs) for ours, theirs in zip(found.float(), expected))
        problem = None if worst <= tolerance(passes.model) else f"logits are off by {worst:.1e} of the largest one"
    except Exception as error:  # a family that works in another way may fail anywhere in its own code
        problem = failure(error)
    if problem:
        leave_out(passes, "FOLLOW", problem)
    return problem is None
