"""Describe a model without loading its weights: its shape, end-of-sequence ids, and a hash of each file that is used.

The description is written once. Later jobs call `verify`, so that none of them computes with files that have changed
since.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetyheads.engine.context import context_length
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import sha256_of
from safetyheads.models.files import INDEX, architecture, has_other_senses, read_index, read_json, weight_files
from safetyheads.models.hugging_face import cached_sha256
from safetyheads.models.tensors import Header, by_name, check_index, check_tensors, stored
from safetyheads.models.tokenizer import check_vocabulary, describe_tokenizer, is_of_tokenizer, tokenizer_files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

ORIGIN = "gguf"
"""The key of config.json that says of which file the weights are: file, sha256, and how many tensors of each type."""


def describe(
    folder: Path,
    *,
    model: str,
    source: Literal["path", "repo", "demo"],
    repo: str | None = None,
    revision: str | None = None,
    organism: str | None = None,
    planted: Sequence[str] | None = None,
    decoy: str | None = None,
    chat_template: str | None = None,
) -> dict[str, Any]:
    """Check the model in `folder` without loading its weights, and return the content of `models/{model}.json`.

    `source` says where the model comes from; `repo` and `revision` are those of a model of Hugging Face. `organism` is
    the kind of a demo model, `planted` are the names of its planted heads, `decoy` is that of its decoy.
    `chat_template` is used if the tokenizer has none of its own.

    In the result, `files` maps the name of each file that is used to its SHA-256, and `gguf` is there for weights that
    were made of a GGUF file, and says of which. `tokenizer` is `fast` if `load_tokenizer` may use the quick class,
    which needs no torch, else `auto`. `kv_heads` and `head_dim` are None where they differ between layers. Raises
    SafetyHeadsError for missing or damaged files, and for models that cannot be measured, because their weights are
    pickled, they bring code of their own, or their attention cannot be hooked.
    """
    tensors, weights = stored(folder), weight_files(folder)
    config, class_ = architecture(folder)
    grid = config.get_text_config(decoder=True)
    check_tensors(f"The model folder {folder}", tensors, config, class_, senses=has_other_senses(folder))
    kind, tokenizer, stops = _tokenizer(folder, config, chat_template)
    names = ["config.json", "generation_config.json", *weights, *tokenizer_files(folder)]
    files = checked_sums(folder, names)
    template = tokenizer.chat_template
    return {
        "model": model,
        "class": class_.__name__,
        "model_type": config.model_type,
        "layers": grid.num_hidden_layers,
        "heads": grid.num_attention_heads,
        "kv_heads": _of_all_layers(grid, "num_key_value_heads", grid.num_attention_heads),
        "head_dim": _of_all_layers(grid, "head_dim", grid.hidden_size // grid.num_attention_heads),
        "hidden_size": grid.hidden_size,
        "vocab_size": grid.vocab_size,
        "context_length": context_length(config),
        "eos_token_ids": stops,
        "source": source,
        "repo": repo,
        "revision": folder.name if source == "repo" and folder.parent.name == "snapshots" else revision,
        "files": files,
        "tokenizer": kind,
        "tokenizer_sha256": _hash({name: digest for name, digest in files.items() if is_of_tokenizer(name)}),
        "chat_template_sha256": None if template is None else _hash(template),
        "organism": organism,
        "planted": None if planted is None else list(planted),
        "decoy": decoy,
        **({ORIGIN: origin} if (origin := read_json(folder / "config.json").get(ORIGIN)) else {}),
    }


def check_before_weights(
    folder: Path, headers: Callable[[], Mapping[str, Header]] = dict, *, chat_template: str | None = None
) -> None:
    """Raise SafetyHeadsError for what can be seen to be wrong with a model before its weights are there.

    In `folder` are config.json, the files of the tokenizer and, where the weights are in several files, their index.
    `headers` asks for what the weights' own headers say, by file; it gives nothing where that is not known.
    """
    where = f"The model folder {folder}"
    config, class_ = architecture(folder)
    index, senses = read_index(folder / INDEX) if (folder / INDEX).is_file() else None, has_other_senses(folder)
    check_index(where, index or {}, config, class_, senses=senses)
    _tokenizer(folder, config, chat_template)
    if known := headers():
        check_tensors(where, by_name(where, known, index), config, class_, senses=senses)


def _tokenizer(
    folder: Path, config: "PreTrainedConfig", chat_template: str | None
) -> tuple[Literal["fast", "auto"], "PreTrainedTokenizerBase", list[int]]:
    """What `describe_tokenizer` returns, once its vocabulary has been checked, and the ids that end a sequence."""
    kind, tokenizer = describe_tokenizer(folder, chat_template)
    grid = config.get_text_config(decoder=True)
    stops = _eos_token_ids(folder, (getattr(part, "eos_token_id", None) for part in (config, grid, tokenizer)))
    check_vocabulary(tokenizer, folder, grid.vocab_size, stops)
    return kind, tokenizer, stops


def checked_sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of the files that is there. Raises SafetyHeadsError for one that changed since it came."""
    files = {name: sha256_of(folder / name) for name in sorted(names) if (folder / name).is_file()}
    for name, digest in files.items():
        _check_file(folder / name, cached_sha256(folder / name) or digest, digest, "that Hugging Face has")
    return files


def verify(folder: Path, files: Mapping[str, str], since: float) -> None:
    """Raise SafetyHeadsError if one of `files` (name -> SHA-256) is missing in `folder` or has changed.

    `since` is the time, in seconds since 1970, at which the hashes were written down. Hashing gigabytes takes seconds,
    so a file is hashed only if it may have changed after that time. The system notes when a file's content, name or
    rights last changed (its ctime), and no program can set this time back. If the folder has been copied since, all of
    its files are newer and are hashed each time.
    """
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise SafetyHeadsError(
                f"{path}, which was there when the model was described, is missing. Copy it back; for a model of "
                "Hugging Face, delete its file in results/models and run again where there is a network."
            )
        if max(path.stat().st_ctime, path.lstat().st_ctime) >= since:
            _check_file(path, digest, sha256_of(path), "that was described in results/models")


def _of_all_layers(config: "PreTrainedConfig", name: str, default: int) -> int | None:
    """A setting of the configuration that is one number for all layers, or None if it differs between layers.

    Configurations of some families, such as Gemma-4, raise an error when such a setting is read. `default` stands for a
    setting that is missing.
    """
    try:
        return getattr(config, name, None) or default
    except RuntimeError:
        return None


def _eos_token_ids(folder: Path, others: Iterable[int | list[int] | None]) -> list[int]:
    """The ids that end a completion, sorted: each one that any of the model's own files names.

    The files do not always agree. For example, chat models may name the end of a turn in generation_config.json alone.
    """
    path = folder / "generation_config.json"
    named = [read_json(path).get("eos_token_id") if path.exists() else None, *others]
    every = (id_ for ids in named if ids is not None for id_ in (ids if isinstance(ids, list) else [ids]))
    return sorted({id_ for id_ in every if id_ >= 0})  # some files say -1 for none


def _check_file(path: Path, expected: str, found: str, which: str) -> None:
    if found != expected:
        raise SafetyHeadsError(
            f"{path} is not the file {which}: expected sha256 {expected}, found {found}. It changed. "
            "Put the right one back: in the Hugging Face cache, delete the model's file in results/models and "
            f"{path.resolve()}, and run again where there is a network. If you changed a model of your own on purpose, "
            "run again with `--forcerun models`."
        )


def _hash(value: Any) -> str:
    return sha256((value if isinstance(value, str) else json.dumps(value, sort_keys=True)).encode()).hexdigest()
