"""How long a text a model is made for, and how its rope is scaled, whatever a family's configuration calls it."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "seq_length",
    "seq_len",
    "n_ctx",
)
"""What families call the number of their positions; the first that a configuration has counts."""


def context_length(config: "PreTrainedConfig") -> int | None:
    """The most tokens, prompt and completion together, that a model is made for; None if its config does not say.

    `max_position_embeddings` is what a model was made for before its rope was scaled, or after, which depends on the
    kind of scaling:

    - `yarn`: `original_max_position_embeddings` times `factor`, because some write the length before scaling (Qwen)
      and others the one after it (DeepSeek, GPT-OSS).
    - `linear`: times `factor` (Vicuna-16k). But where the settings differ between kinds of layers (Gemma 3), it is the
      length after scaling.
    - `dynamic`: times `factor`, as scaling begins where that length ends.
    - `llama3`, `longrope` and others: it is the length after scaling.

    Positions that were learned cannot be scaled: there `max_position_embeddings` is the size of a table. Cohere says in
    `model_max_length` what its rope was trained for.
    """
    text = config.get_text_config(decoder=True)
    length = next((int(found) for name in _LENGTHS if (found := setting(text, name))), None)
    scaling = list(ropes(text))
    if not scaling:
        return length
    if trained := setting(text, "model_max_length"):
        return int(trained)
    lengths = [_scaled(rope, length, by_layer=name is not None) for name, rope in scaling]
    return max((found for found in lengths if found is not None), default=None)


def _scaled(rope: Mapping[str, Any], length: int | None, *, by_layer: bool) -> int | None:
    """The context length with one rope's settings, where the configuration says `length`."""
    kind, factor, original = kind_of(rope), rope.get("factor"), rope.get("original_max_position_embeddings") or length
    stretched = kind == "yarn" or "dynamic" in kind or (kind == "linear" and not by_layer)
    return int(original * factor) if stretched and factor and original else length


def ropes(text: "PreTrainedConfig") -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """The settings of each rope of a text model, and the kind of layers that it is for: None stands for all layers.

    A family without rope has none, whatever its config.json says.
    """
    rope = (getattr(text, "rope_parameters", None) if hasattr(type(text), "rope_parameters") else None) or {}
    by_layer = {name: settings for name, settings in rope.items() if isinstance(settings, Mapping)}
    yield from by_layer.items() if by_layer else [(None, rope)] if rope else []


def kind_of(rope: Mapping[str, Any]) -> str:
    """The kind of scaling of one rope, such as `yarn`."""
    return str(rope.get("rope_type") or rope.get("type") or "default")


def setting(config: "PreTrainedConfig", name: str) -> Any:
    """A setting of a configuration, or None: some families raise an error where it differs between layers."""
    try:
        return getattr(config, name, None)
    except RuntimeError:
        return None
