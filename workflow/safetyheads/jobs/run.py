"""What the jobs of the pipeline share: a log and readable errors, the model, the record of how a result was made."""

import gc
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.artifacts import files as artifacts
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs import gpu_lease
from safetyheads.models import load as models
from safetyheads.models.derived import ROLES, take_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("accelerate", "numpy", "pandas", "pyarrow", "tokenizers", "torch", "transformers")


@contextmanager
def logged(log: str, *, online: bool = False) -> Iterator[None]:
    """Write log messages and warnings of the block to the file `log`; progress bars stay on the terminal.

    Unless `online`, Hugging Face is not asked for anything within the block, as with HF_HUB_OFFLINE=1. An error ends
    the process with status 1: a SafetyHeadsError as its message alone, any other with its traceback.
    """
    logging.basicConfig(handlers=[_handler(log)], level=logging.INFO, force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells addresses, which may be signed
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        with nullcontext() if online else _offline():
            yield
    except SafetyHeadsError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if should_reduce_batch_size(error):
            logging.error(
                "Out of memory: %s\nLower `compute: token_budget`, or set the model's `dtype: bfloat16`.", error
            )
        else:
            logging.exception("An error that should not happen; please report it with this log.")
        sys.exit(1)


def _handler(log: str) -> logging.Handler:
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(_WithoutTokens("%(levelname)s: %(message)s"))
    return handler


class _WithoutTokens(logging.Formatter):
    """Messages and tracebacks without the user's Hugging Face token, whatever library wrote them."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        hub: Any = sys.modules.get("huggingface_hub")  # what else would have read a file with a token?
        tokens = [os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")]
        if hasattr(hub, "get_token"):  # not while it is being imported
            tokens.append(hub.get_token())
        for token in filter(None, tokens):
            text = text.replace(token, "hf_***")
        return re.sub(r"\bhf_\w{8,}", "hf_***", text)


@contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("HF_HUB_OFFLINE")
    constants: Any = sys.modules.get("huggingface_hub.constants")  # read the environment when it was imported
    was = None if constants is None else constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if constants is not None:
            constants.HF_HUB_OFFLINE = was
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def model_folder(settings: Config, name: str, revision: str | None = None, *, download: bool = False) -> Path:
    """Where the files of a model are, at `revision` or that of the configuration.

    Raises SafetyHeadsError if they are not there; with `download` they are fetched.
    """
    model = settings.model(name)
    if model.demo:
        return Path(settings.results) / "models" / name
    return models.locate(path=model.path, repo=model.repo, revision=revision or model.revision, download=download)


def open_model(settings: Config, name: str, description: Path) -> "PreTrainedModel":
    """Load a model for scoring or generation, with the threads, device, dtype and attention of the configuration.

    `description` is `models/{name}.json`. Raises SafetyHeadsError if it is not that of the model's files.
    """
    import torch

    torch.set_num_threads(settings.compute.threads)  # their number can change the last bits of floats
    folder = _described_folder(settings, name, description, tokenizer=False)
    model = settings.model(name)
    device = gpu_lease.take(settings.compute.device, model.gpus)
    loaded = models.load(
        folder,
        dtype=model.dtype,
        device=device,
        attention=model.attention,
        gpus=model.gpus,
        max_memory=model.max_memory,
    )
    if model.attention_from:
        take_attention(loaded, _described_folder(settings, name, description, tokenizer=False, role="attention_from"))
    gc.freeze()
    gc.enable()  # see `startup`
    return loaded


def open_tokenizer(settings: Config, name: str, description: Path) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer; `description` and errors are those of `open_model`."""
    folder = _described_folder(settings, name, description, tokenizer=True)
    kind = artifacts.read_json(description)["tokenizer"]
    return models.load_tokenizer(folder, kind, settings.chat_template(name))


def _described_folder(
    settings: Config, name: str, description: Path, *, tokenizer: bool, role: str = "rest_from"
) -> Path:
    """A model's folder, after a look at the files of its tokenizer, or at all others; of a derived one, by role."""
    identity = artifacts.read_json(description)
    files, revision = identity["files"], identity["revision"]
    if settings.sources(name):
        files = {file.removeprefix(f"{role}/"): sha for file, sha in files.items() if file.startswith(f"{role}/")}
        name, revision = identity[role]["model"], identity[role]["revision"]
    folder = model_folder(settings, name, revision)
    files = {file: sha for file, sha in files.items() if (file in models.TOKENIZER_FILES) == tokenizer}
    models.verify(folder, files, description.stat().st_mtime)
    return folder


def provenance(
    params: Mapping[str, Any],
    description: Path | None = None,
    model: "PreTrainedModel | None" = None,
    prompts: Path | None = None,
) -> dict[str, Any]:
    """How a result was made: settings and code of its rule, identity of the model, device, libraries.

    `description` is the model's JSON file, `prompts` the prompts' artefact. No clock times, paths or batch
    sizes: the same inputs, the same record.
    """
    settings = dict(params)
    record: dict[str, Any] = {
        "code": settings.pop("code"),
        "config": settings,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    if description is not None:
        identity = artifacts.read_json(description)
        kept = ("repo", "revision", "files", "tokenizer_sha256", "chat_template_sha256")
        record["model"] = {key: identity[key] for key in (*kept, *(role for role in ROLES if role in identity))}
    if model is not None:
        record |= {
            "attention": model.config.get_text_config(decoder=True)._attn_implementation,
            "device": _device_kind(model),
            "dtype": str(model.dtype).removeprefix("torch."),
        }
    if prompts is not None:
        record["template_hash"] = artifacts.provenance(prompts)["template_hash"]
    return record


def common(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One record of a result that several jobs made: where theirs differ, as in `device`, a list of what each says."""
    seen: dict[str, list[Any]] = {}
    for record in records:
        for key, value in record.items():
            found = seen.setdefault(key, [])
            if value not in found:
                found.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in seen.items()}


def _device_kind(model: "PreTrainedModel") -> str:
    import torch

    from safetyheads.engine.decoder import input_device

    device = input_device(model)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
