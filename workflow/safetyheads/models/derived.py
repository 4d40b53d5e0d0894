"""Derived models: the attention weights of one model put into another of the same shape (figure 6a of the paper).

For example, the attention of an aligned model in the base model that it was trained from shows how much of the
alignment the attention carries. A derived model exists in memory alone. On disk there is only the recipe: which model
each half comes from.
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
"""Settings in which the two models may differ.

They change neither what attention computes with its weights, nor the shape of any weight besides those of the
vocabulary, which are no part of the attention. Everything in the derived model follows the model that the rest comes
from.
"""


def check_pair(attention: tuple[str, Path], rest: tuple[str, Path]) -> None:
    """Raise SafetyHeadsError unless the attention weights of the first model fit into the second.

    Each model is given as (name, folder). Both must have one class, and equal values in their config.json of all
    settings of that class but those in `_OF_THE_REST`.
    """
    (first, class_), (second, other) = (architecture(folder) for _, folder in (attention, rest))
    if class_ is not other:
        raise SafetyHeadsError(
            f"The attention of {attention[0]!r}, a {class_.__name__}, does not fit into {rest[0]!r}, a "
            f"{other.__name__}. Both must be models of one class."
        )
    ours, theirs = first.to_dict(), second.to_dict()
    of_class = type(first)().to_dict().keys()  # a config.json may have other keys, which the model never reads
    different = sorted(key for key in of_class - _OF_THE_REST if ours.get(key) != theirs.get(key))
    if different:
        listed = "; ".join(f"{key} is {ours.get(key)!r} and {theirs.get(key)!r}" for key in different)
        raise SafetyHeadsError(
            f"The attention of {attention[0]!r} does not fit into {rest[0]!r}, as their config.json differ: {listed}. "
            "Both must have the same shape; choose a model and one that was trained from it."
        )


def recipe(name: str, attention: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `models/{name}.json` for a derived model.

    `attention` and `rest` are the contents of the JSON files of the two models that it is made from. Shape, tokenizer
    and end-of-sequence ids are those of `rest`. `files` has the files of both, with the role before the name, such as
    `attention_from/model.safetensors`.
    """
    parts = dict(zip(ROLES, (attention, rest)))
    return {
        **rest,
        "model": name,
        "source": "derived",
        "repo": None,
        "revision": None,
        "files": {f"{role}/{file}": sha for role, part in parts.items() for file, sha in part["files"].items()},
        "organism": None,
        "planted": None,
        "decoy": None,
        **{role: {key: part[key] for key in ("model", "repo", "revision")} for role, part in parts.items()},
    }
