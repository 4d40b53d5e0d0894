"""The attention implementation that a model runs with, and how to let it run with another one for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from safetyheads.engine.ablation import install

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
