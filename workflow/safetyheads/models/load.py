"""Load a model's weights for measuring: frozen, in evaluation mode, and with the hooks of ablation installed."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.device_map import MaxMemory, Placement
from safetyheads.models.files import INDEX, architecture, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

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
    there or too small, if the attention is not possible, and if a parameter of the model is not in its files.
    """
    import torch

    from safetyheads.engine.ablation import install
    from safetyheads.engine.decoder import in_float32
    from safetyheads.models.attention import implementation
    from safetyheads.models.memory import save_page_faults
    from safetyheads.models.weights import weights

    shards = [name for name in weight_files(folder) if name != INDEX]
    config, class_ = architecture(folder)
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
        with _quiet():
            result: Any = class_.from_pretrained(
                folder if placement.on_disk else None,  # so that weights on disk stay in the model's own files
                state_dict=None if placement.on_disk else weights(folder, shards, number),
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
    _check_loaded(folder, report)
    placement.check(loaded)
    loaded.requires_grad_(False)
    install(loaded)
    if loaded.dtype != torch.float32:
        in_float32(loaded)
    return loaded


def _check_loaded(folder: Path, report: dict[str, Any]) -> None:
    lost = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if lost or report["error_msgs"]:
        raise SafetyHeadsError(
            f"The weights in {folder} do not fill the model that its config.json describes: {len(lost)} parameters are "
            f"missing or of another shape ({', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}). They would be "
            "random numbers. Check that config.json belongs to these weights."
        )
    if report["unexpected_keys"]:
        log.warning("%s: weights without a place in the model were left out: %s", folder, report["unexpected_keys"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and load report within the block: `_check_loaded` reads the report."""
    import transformers

    transformers_logging: Any = transformers.utils.logging
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()
