"""Open a model for a job: on which device, in which numbers, with which attention, on how many threads.

All of these change the last bits of floats, so this module counts in the fingerprint of every rule that opens a model.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.models.device_map import MaxMemory
from safetyheads.models.load import load

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def open_model(
    folder: Path,
    *,
    dtype: str,
    attention: str,
    device: str,
    threads: int,
    gpus: int = 1,
    max_memory: MaxMemory | None = None,
    attention_folder: Path | None = None,
) -> "PreTrainedModel":
    """Load the model in `folder`, with the attention weights of `attention_folder` if that is given.

    The process computes on `threads` CPU threads from then on. The other arguments, and errors, are those of `load`.
    """
    import torch

    from safetyheads.models.attention_weights import take_attention

    torch.set_num_threads(threads)
    model = load(folder, dtype=dtype, device=device, attention=attention, gpus=gpus, max_memory=max_memory)
    if attention_folder is not None:
        take_attention(model, attention_folder)
    return model
