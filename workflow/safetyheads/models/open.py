"""Open a model for a job: on a device, in a number format, with an attention and on a number of threads.

Each of these changes the last bits of floats. So this module counts in the fingerprint of every rule that opens a
model.
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
    """Load the model in `folder`, with the attention weights of `attention_folder` if that is given (a derived model).

    From then on the process computes on `threads` CPU threads. The other arguments are those of `load`. Raises
    SafetyHeadsError as `load` and `take_attention` do.
    """
    import torch

    from safetyheads.models.attention_weights import take_attention

    torch.set_num_threads(threads)
    model = load(folder, dtype=dtype, device=device, attention=attention, gpus=gpus, max_memory=max_memory)
    if attention_folder is not None:
        take_attention(model, attention_folder)
    return model
