"""Derived models: the attention weights of one model in another of the same shape (figure 6a of the paper).

They exist in memory alone; what is written is the recipe.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.files import architecture

ROLES = ("attention_from", "rest_from")

_OF_THE_REST = frozenset(
    {
        *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "max_position_embeddings"),
        *("tie_word_embeddings", "initializer_range", "pretraining_tp", "attention_dropout", "id2label", "label2id"),
    }
)
"""What may differ: it changes no weight's shape but the vocabulary's, nor what attention does with its weights."""


def check_pair(attention: tuple[str, Path], rest: tuple[str, Path]) -> None:
    """Raise SafetyHeadsError unless the first model's attention weights fit into the second; each is (name, folder)."""
    (first, class_), (second, other) = (architecture(folder) for _, folder in (attention, rest))
    if class_ is not other:
        raise SafetyHeadsError(
            f"The attention of {attention[0]!r}, a {class_.__name__}, does not fit into {rest[0]!r}, a "
            f"{other.__name__}. Both must be models of one class."
        )
    ours, theirs = first.to_dict(), second.to_dict()
    of_class = type(first)().to_dict().keys()  # what else a config.json says means nothing to the model
    different = sorted(key for key in of_class - _OF_THE_REST if ours.get(key) != theirs.get(key))
    if different:
        listed = "; ".join(f"{key} is {ours.get(key)!r} and {theirs.get(key)!r}" for key in different)
        raise SafetyHeadsError(
            f"The attention of {attention[0]!r} does not fit into {rest[0]!r}, as their config.json differ: {listed}. "
            "Both must have the same shape; choose a model and one that was trained from it."
        )


def recipe(name: str, attention: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """What `models/{name}.json` holds, from what the JSON files of both models hold.

    Shape, tokenizer and ends of sequence are the second's; `files` has those of both, by role.
    """
    parts = dict(zip(ROLES, (attention, rest)))
    return {
        **rest,
        "model": name,
        "source": "derived",
        "repo": None,
        "revision": None,
        "files": {f"{role}/{file}": sha for role, part in parts.items() for file, sha in part["files"].items()},
        "planted": None,
        **{role: {key: part[key] for key in ("model", "repo", "revision")} for role, part in parts.items()},
    }
