"""The attention implementation that a model runs with, and how to let it run with another one for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from transformers import AttentionInterface, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from safetyheads.engine.ablation import Attend, install

T = TypeVar("T", bound=Attend)
EAGER = "eager"


def implementation(model: PreTrainedModel) -> str:
    """The name of the attention that a model runs with: `sdpa`, `eager`, `flash_attention_2`."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)


@contextmanager
def attending(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Within the block, the model attends with another implementation, masks included; then with its own again."""
    own = implementation(model)
    try:
        model.set_attn_implementation(name)
        install(model)
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def wrapped(name: str, wrap: Callable[[Attend], T]) -> Iterator[T]:
    """Within the block, the implementation of this name is what `wrap` makes of it, which is yielded."""
    base = ALL_ATTENTION_FUNCTIONS[name]
    around = wrap(base)
    AttentionInterface.register(name, around)
    try:
        yield around
    finally:
        AttentionInterface.register(name, base)
