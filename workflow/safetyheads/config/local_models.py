"""What the config.json in a model's folder says of its shape, read without loading the model."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads")
"""What families of models call the number of layers, and that of query heads in a layer."""


def read_config(folder: Path) -> Mapping[str, Any]:
    """The values of config.json; nothing where there is no such file, or where it holds something else.

    A model of text and pictures describes its text model in a section of its own, whose values come first here.
    """
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    inner = values.get("text_config")
    return values | inner if isinstance(inner, dict) else values


def whole_number(values: Mapping[str, Any], *names: str) -> int | None:
    """The value of the first of these names that has a whole number above 0; None if none has."""
    return next((values[name] for name in names if type(values.get(name)) is int and values[name] > 0), None)


def local_grid(folder: Path) -> tuple[int, int] | None:
    """Layers, and query heads in a layer, of the model in a folder; None if its config.json does not say."""
    values = read_config(folder)
    layers, heads = whole_number(values, *LAYERS), whole_number(values, *HEADS)
    return None if layers is None or heads is None else (layers, heads)
