"""Which attention kernels a loaded model really runs.

A model that asks torch for `sdpa` does not say which kernel that is: torch chooses one by device, dtype, shape and
mask. Kernels round in different ways, so the same settings may give other last bits on another machine. The choice can
only be seen when it is made: here tiny passes are run, and torch's calls are watched.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.decoder import cache_argument, input_device

log = logging.getLogger(__name__)

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_KERNEL = "_scaled_dot_product_"  # how the names of kernels begin, and of their choice nothing else does
_LENGTH, _PADDING = 8, 3


def kernels(model: PreTrainedModel) -> list[str]:
    """The attention kernels that passes of this model run, sorted: `flash_for_cpu`, `efficient`, `math`, ...

    Run are a prompt without padding, as scores do; two prompts with padding on the left, as generation does, which need
    a mask; and one more token for each, on a cache. An implementation that does not go through torch's choice is
    returned by its own name, `eager` or `flash_attention_2`.
    """
    seen: set[str] = set()
    with torch.inference_mode(), _Watch(seen):
        _run(model, [0])
        _run(model, [_PADDING, 0])
        try:
            _run(model, [_PADDING, 0], then_a_token=True)
        except Exception as error:  # scores need no cache, and a family without one may fail anywhere in its own code
            log.info("%s runs no token on a cache: %s: %s", type(model).__name__, type(error).__name__, error)
    return sorted(seen) or [model.config.get_text_config(decoder=True)._attn_implementation]


def _run(model: PreTrainedModel, padding: list[int], then_a_token: bool = False) -> None:
    """Run one prompt of zeros for each entry of `padding`, with so many positions that nobody sees."""
    visible = torch.ones(len(padding), _LENGTH, dtype=torch.long, device=input_device(model))  # (B, T)
    for row, hidden in zip(visible, padding):
        row[:hidden] = 0
    cache = {cache_argument(model): DynamicCache(config=model.config)} if then_a_token else {}
    padded: dict[str, Tensor] = {}
    if any(padding):
        padded = {"attention_mask": visible, "position_ids": (visible.cumsum(dim=1) - 1).clamp_min(0)}
    model(torch.zeros_like(visible), use_cache=then_a_token, logits_to_keep=1, **padded, **cache)
    if then_a_token:
        visible = torch.cat([visible, visible.new_ones(len(padding), 1)], dim=1)  # (B, T + 1)
        position = visible.sum(dim=1, keepdim=True) - 1  # (B, 1)
        ids = torch.zeros_like(position)
        model(ids, attention_mask=visible, position_ids=position, use_cache=True, logits_to_keep=1, **cache)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the kernels that torch chooses for its scaled dot product attention."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _ATTENTION:  # in inference mode it arrives whole; its parts are what tells
            with self:
                return func.decompose(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name.startswith(_KERNEL):
            self.seen.add(name.removeprefix(_KERNEL).removeprefix("attention_").replace("_attention", ""))
        return func(*args, **(kwargs or {}))
