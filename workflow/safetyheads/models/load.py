"""Load a model's weights for measuring: frozen, in evaluation mode, and with the hooks of ablation installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.device_map import MaxMemory, Placement
from safetyheads.models.files import architecture, has_other_senses
from safetyheads.models.quiet import quiet
from safetyheads.models.tensors import check_loaded, check_tensors, stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AUTOMATIC = {"cpu": "float32", "cuda": "bfloat16"}
"""What `dtype: auto` stands for on each type of device."""


def load(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "auto",
    gpus: int | Sequence[int] = 1,
    max_memory: MaxMemory | None = None,
) -> "PreTrainedModel":
    """Load the model in `folder` for measuring: frozen, in evaluation mode, and after `ablation.install`.

    - `dtype`: `auto` is float32 on the CPU and bfloat16 on a GPU. `tf32` is float32 whose matrix products round their
      inputs to TF32 on a GPU; this holds for the whole process.
    - `device`: `auto` is the GPU if there is one.
    - `attention`: see `attention.implementation`.
    - `gpus`: how many to use, from the first on, or a list of their numbers. Layers are spread over several.
    - `max_memory`: how much weights may take on each of these GPUs and in main memory (`cpu`). The rest stays on disk.

    In 16 bits, the final norm and the output layer compute in float32. Raises SafetyHeadsError if the device is not
    there or too small, if the attention is not possible, and unless every parameter is in the files and every tensor of
    the files in the model.
    """
    import torch

    from safetyheads.engine.ablation import install
    from safetyheads.engine.decoder import in_float32
    from safetyheads.models.attention import implementation
    from safetyheads.models.memory import save_page_faults
    from safetyheads.models.weights import weights

    tensors = stored(folder)
    config, class_ = architecture(folder)
    named, senses = f"The model folder {folder}", has_other_senses(folder)
    check_tensors(named, tensors, config, class_, senses=senses)
    placement = Placement(device, gpus, max_memory)
    where = placement.first
    precision = AUTOMATIC[where.type] if dtype == "auto" else dtype
    if where.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    else:
        save_page_faults()
    number = torch.float32 if precision == "tf32" else getattr(torch, precision)
    attend = implementation(class_, config, attention, device=where.type, dtype=precision)
    try:
        with quiet():
            result: Any = class_.from_pretrained(
                folder if placement.on_disk else None,  # so that weights on disk stay in the model's own files
                state_dict=None
                if placement.on_disk
                else weights(folder, sorted({tensor.file for tensor in tensors.values()}), number),
                config=config,
                dtype=number,
                **placement.arguments,
                attn_implementation=attend,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except torch.OutOfMemoryError:
        raise SafetyHeadsError(
            f"The model in {folder} does not fit into the memory of {where} as {precision}. Free the device, take a "
            "larger one, set `dtype: bfloat16`, or spread the model: see `gpus` and `max_memory` in config/README.md."
        ) from None
    except ImportError as error:
        raise SafetyHeadsError(f"The model in {folder} needs a package that is not installed: {error}") from None
    loaded: PreTrainedModel = result[0]
    report: dict[str, Any] = result[1]
    check_loaded(named, loaded, report, tensors, senses=senses)
    placement.check(loaded)
    loaded.requires_grad_(False)
    install(loaded)
    if loaded.dtype != torch.float32:
        in_float32(loaded)
    return loaded
