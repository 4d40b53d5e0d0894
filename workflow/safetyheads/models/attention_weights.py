"""Copy the attention weights of one model, from its files, into another model that is in memory.

This makes a derived model: its attention comes from one model and everything else from another (see `derived`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.engine.decoder import decoder
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.tensors import stored

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def take_attention(model: "PreTrainedModel", folder: Path) -> None:
    """Overwrite every weight inside the model's attention modules with that of the model in `folder`.

    Weights are read one at a time, so that no second model is ever in memory. Raises SafetyHeadsError if a weight is
    missing in the folder, has another shape there or is quantised, if a layer does not have exactly one attention
    module, or if some weights of `model` are not in memory.
    """
    import torch
    from safetensors import safe_open

    places = {name: folder / tensor.file for name, tensor in stored(folder).items()}
    with torch.no_grad():
        for path, keys in _by_file(_attention(model), model.base_model_prefix, places, folder).items():
            with safe_open(path, framework="pt") as opened:
                for key, weight in keys:
                    _overwrite(weight, opened.get_tensor(key), key, folder)


def _attention(model: "PreTrainedModel") -> dict[str, Any]:
    """The parameters and saved buffers of the attention modules, by their names in the model.

    Raises SafetyHeadsError if a layer does not have exactly one attention module.
    """
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, Any] = {}
    for layer in decoder(model).layers:
        modules = [child for child in layer.modules() if type(child).__name__.endswith("Attention")]
        if len(modules) != 1:
            raise SafetyHeadsError(
                f"A layer of {type(model).__name__} has {len(modules)} attention modules, not one: whose weights would "
                "be exchanged is not clear, so no model can be derived from it."
            )
        found |= modules[0].state_dict(prefix=f"{names[modules[0]]}.", keep_vars=True)
    return found


def _by_file(
    weights: Mapping[str, Any], prefix: str, places: Mapping[str, Path], folder: Path
) -> dict[Path, list[tuple[str, Any]]]:
    """The weights grouped by the file that has them, each with its name in that file.

    A weight that the model calls `model.layers.0...` may be `layers.0...` in a file that was saved from the base model,
    without its output layer. `prefix` is what such a file leaves out, here `model`.
    """
    grouped: dict[Path, list[tuple[str, Any]]] = {}
    for name, weight in weights.items():
        if weight.device.type == "meta":
            raise SafetyHeadsError(
                "A derived model must be in memory as a whole, but some of its weights are on disk or moved in for "
                "each pass. Leave `max_memory` out, or use a larger GPU."
            )
        key = next((key for key in (name, name.removeprefix(f"{prefix}.")) if key in places), None)
        if key is None:
            raise SafetyHeadsError(f"{folder} has no weight {name!r}, so its attention cannot be taken.")
        grouped.setdefault(places[key], []).append((key, weight))
    return grouped


def _overwrite(weight: Any, tensor: Any, key: str, folder: Path) -> None:
    if weight.shape != tensor.shape:
        raise SafetyHeadsError(
            f"{key!r} is {tuple(tensor.shape)} in {folder}, where the derived model has {tuple(weight.shape)}."
        )
    if weight.is_floating_point() and (not tensor.is_floating_point() or tensor.dtype.itemsize < 2):
        raise SafetyHeadsError(
            f"{key!r} is quantised in {folder} ({str(tensor.dtype).removeprefix('torch.')}), so its numbers mean "
            "nothing without their scales. Derive from models that are not quantised."
        )
    weight.copy_(tensor)
