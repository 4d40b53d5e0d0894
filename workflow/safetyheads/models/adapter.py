"""Merge a LoRA adapter into a loaded model, by the package peft."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_adapter(folder: Path) -> None:
    """Raise SafetyHeadsError unless the folder has the files of an adapter with safetensors weights."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise SafetyHeadsError(
            f"{folder} holds no adapter of peft with safetensors weights: {', '.join(missing)} is not there."
        )


def merge_adapter(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """The model with the adapter in `folder` merged into its weights, frozen.

    Raises SafetyHeadsError if peft is not installed, or if the adapter belongs to another model.
    """
    check_adapter(folder)
    try:
        from peft import PeftModel
    except ImportError:
        raise SafetyHeadsError(
            "A judge with an adapter needs the package peft: `pip install safetyheads[judges]`, or `pip install peft`."
        ) from None
    try:
        with quiet():
            merged: Any = PeftModel.from_pretrained(model, folder, local_files_only=True).merge_and_unload()
    except (RuntimeError, ValueError, KeyError) as error:
        raise SafetyHeadsError(f"The adapter in {folder} does not fit its model: {error}") from None
    loaded: PreTrainedModel = merged.eval().requires_grad_(False)
    return loaded
