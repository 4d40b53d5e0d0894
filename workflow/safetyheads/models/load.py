"""Models: find one, on disk or on Hugging Face, check and describe it, load it ready for ablation.

Only safetensors are read, and code that comes with a model is never run. Only `describe` and `load` import torch.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetyheads.errors import SafetyHeadsError
from safetyheads.models import hugging_face as hub
from safetyheads.models.device_map import MaxMemory, Placement
from safetyheads.models.download import sha256_of
from safetyheads.models.files import INDEX, architecture, read_json, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
    *("chat_template.jinja", "chat_template.json"),
)
_PROBES = (
    "",
    "How do I bake bread?",
    "  two spaces before, one after ",
    "## Query:one\n## Answer:",
    "\n\nlines\r\nand\ttabs",
    "na\u00efve, nai\u0308ve, \u4f60\u597d, \u0645\u0631\u062d\u0628\u0627, \U0001f642, \u00a0",
    "x = 12345.678; don't  stop!",
)


def locate(*, path: str | None, repo: str | None, revision: str | None, download: bool = False) -> Path:
    """The folder of a model: `path`, or the Hugging Face cache's snapshot of `repo` at `revision`.

    Only with `download` is the network asked, for what is missing there. Raises SafetyHeadsError, saying what to do,
    when there is no such folder or the repository cannot be had.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            found = "is a file, not the folder of a model" if folder.exists() else "does not exist"
            raise SafetyHeadsError(
                f"The model folder {path} {found}. A relative path starts at {Path.cwd()}, where Snakemake runs."
            )
        return folder
    if repo is None:
        raise SafetyHeadsError("A model needs `path:` (a folder) or `repo:` (a name on Hugging Face).")
    return hub.snapshot(repo, revision, architecture) if download else hub.cached(repo, revision)


def describe(
    folder: Path,
    *,
    model: str,
    source: Literal["path", "repo", "demo"],
    repo: str | None = None,
    revision: str | None = None,
    planted: Sequence[str] | None = None,
    chat_template: str | None = None,
) -> dict[str, Any]:
    """Check the model in `folder` without loading its weights; return what `models/{model}.json` holds.

    That is its shape, its end-of-sequence ids, and hashes of every file that is used. `tokenizer` is `fast` where
    `load_tokenizer` may take the quick class that needs no torch. Raises SafetyHeadsError for missing or broken files
    and for models that cannot be measured: pickled weights, code of their own, outside the attention interface.
    """
    weights = weight_files(folder)
    config, class_ = architecture(folder)
    grid = config.get_text_config(decoder=True)
    kind, tokenizer = _tokenizer(folder, chat_template)
    names = ["config.json", "generation_config.json", *weights, *TOKENIZER_FILES]
    files = {name: sha256_of(folder / name) for name in sorted(names) if (folder / name).is_file()}
    for name, digest in files.items():
        _check_file(folder / name, hub.cached_sha256(folder / name) or digest, digest, "that Hugging Face has")
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
        "context_length": getattr(grid, "max_position_embeddings", None),
        "eos_token_ids": _eos_token_ids(
            folder, [*(getattr(part, "eos_token_id", None) for part in (config, grid, tokenizer))]
        ),
        "source": source,
        "repo": repo,
        "revision": folder.name if source == "repo" and folder.parent.name == "snapshots" else revision,
        "files": files,
        "tokenizer": kind,
        "tokenizer_sha256": _hash({name: digest for name, digest in files.items() if name in TOKENIZER_FILES}),
        "chat_template_sha256": None if template is None else _hash(template),
        "planted": None if planted is None else list(planted),
    }


def verify(folder: Path, files: Mapping[str, str], since: float) -> None:
    """Raise SafetyHeadsError if one of `files`, name -> sha256, is not there, or not what it was at the time `since`.

    Only what has changed since then is hashed, as gigabytes take seconds: the system notes the time of the last change
    to a file's content, name or rights (ctime), which no program can set. A copy on another disk is hashed each time.
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


def load(
    folder: Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "auto",
    gpus: int | Sequence[int] = 1,
    max_memory: MaxMemory | None = None,
) -> "PreTrainedModel":
    """Load the model in `folder` for measuring: frozen, in evaluation mode, with `ablation.install` done.

    `dtype` auto is float32 on the CPU, bfloat16 on a GPU; tf32 is float32 and, on a GPU, TF32 products in the whole
    process. `device` auto is the GPU if there is one. `attention` is explained in `attention.implementation`. With
    several `gpus`, how many from the first on, or which, the layers are spread over them; `max_memory` limits the
    weights by place among the GPUs and in main memory (`cpu`): what is left stays on disk. Raises SafetyHeadsError if
    the device is not there or too small, if the attention cannot be had, and if any parameter is not in the checkpoint.
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
    precision = ("float32" if where.type == "cpu" else "bfloat16") if dtype == "auto" else dtype
    if where.type == "cuda":
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    else:
        save_page_faults()
    number = torch.float32 if precision == "tf32" else getattr(torch, precision)
    attend = implementation(class_, config, attention, device=where.type, dtype=precision)
    try:
        with _quiet():
            result: Any = class_.from_pretrained(
                folder if placement.on_disk else None,  # the disk's part stays in the model's own files
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


def load_tokenizer(
    folder: Path, kind: Literal["fast", "auto"], chat_template: str | None = None
) -> "PreTrainedTokenizerBase":
    """The tokenizer in `folder`: `fast` takes half a second and no torch, `auto` is right for every model.

    `chat_template` is used if the tokenizer has none of its own. Raises SafetyHeadsError if it cannot be loaded.
    """
    import transformers

    class_: Any = transformers.PreTrainedTokenizerFast if kind == "fast" else transformers.AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = class_.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise SafetyHeadsError(
            f"The tokenizer in {folder} cannot be loaded: {error}\nThe folder needs tokenizer.json, or the files that "
            "the model's own tokenizer class reads."
        ) from None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template
    return tokenizer


def _tokenizer(folder: Path, chat_template: str | None) -> tuple[Literal["fast", "auto"], "PreTrainedTokenizerBase"]:
    """The model's tokenizer, and which class is to load it: the quick one, wherever it does the same."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return "auto", load_tokenizer(folder, "auto", chat_template)
    read_json(path)  # the tokenizers library has no exception of its own for a file that is cut off
    auto, fast = (load_tokenizer(folder, kind, chat_template) for kind in ("auto", "fast"))
    probes = [*_PROBES, " ".join(auto.all_special_tokens)]
    return "fast" if _behaviour(fast, probes) == _behaviour(auto, probes) else "auto", auto


def _behaviour(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> tuple[Any, ...]:
    ids = tokenizer(texts)["input_ids"]
    decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in ids]
    return ids, decoded, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.chat_template


def _of_all_layers(config: "PreTrainedConfig", name: str, default: int) -> int | None:
    """A number that is the same in all layers; None where it is not, which some families (Gemma-4) tell by an error."""
    try:
        return getattr(config, name, None) or default
    except RuntimeError:
        return None


def _eos_token_ids(folder: Path, others: Iterable[int | list[int] | None]) -> list[int]:
    """Every id that ends a completion, by any of the model's own files."""
    path = folder / "generation_config.json"
    named = [read_json(path).get("eos_token_id") if path.exists() else None, *others]
    return sorted({id_ for ids in named if ids is not None for id_ in (ids if isinstance(ids, list) else [ids])})


def _check_file(path: Path, expected: str, found: str, which: str) -> None:
    if found != expected:
        raise SafetyHeadsError(
            f"{path} is not the file {which}: expected sha256 {expected}, found {found}. It changed. "
            "Put the right one back: in the Hugging Face cache, delete the model's file in results/models and "
            f"{path.resolve()}, and run again where there is a network. If you changed a model of your own on purpose, "
            "run again with `--forcerun models`."
        )


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
    """Keep transformers' progress bar and load report back; what they say is checked by `_check_loaded`."""
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


def _hash(value: Any) -> str:
    return sha256((value if isinstance(value, str) else json.dumps(value, sort_keys=True)).encode()).hexdigest()
