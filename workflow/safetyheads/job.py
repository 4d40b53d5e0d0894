"""What the jobs of the pipeline share: a log and readable errors, the model, the record of how a result was made."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads import artifacts, models
from safetyheads.config import Config
from safetyheads.errors import SafetyHeadsError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("accelerate", "numpy", "pandas", "pyarrow", "tokenizers", "torch", "transformers")


@contextmanager
def logged(log: str) -> Iterator[None]:
    """Write log messages and warnings of the block to the file `log`; progress bars stay on the terminal.

    An error ends the process with status 1: a SafetyHeadsError as its message alone, any other with its traceback.
    """
    logging.basicConfig(
        filename=log,
        filemode="w",
        level=logging.INFO,
        format="%(levelname)s: %(message)s",
        encoding="utf-8",
        force=True,
    )
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
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


def model_folder(settings: Config, name: str, *, download: bool = False) -> Path:
    """Where the files of a model are. Raises SafetyHeadsError if they are not there."""
    model = settings.model(name)
    if model.demo:
        return Path(settings.results) / "models" / name
    return models.locate(path=model.path, repo=model.repo, revision=model.revision, local_files_only=not download)


def open_model(settings: Config, name: str) -> "PreTrainedModel":
    """Load a model for scoring or generation, with the threads, device, dtype and attention of the configuration."""
    import torch

    torch.set_num_threads(settings.compute.threads)  # their number can change the last bits of floats
    folder, wanted = model_folder(settings, name), settings.model(name)
    return models.load(folder, dtype=wanted.dtype, device=settings.compute.device, attention=wanted.attention)


def open_tokenizer(settings: Config, name: str, description: Mapping[str, Any]) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer; `description` is what `models/{name}.json` holds."""
    folder, template = model_folder(settings, name), settings.model(name).chat_template
    return models.load_tokenizer(folder, description["tokenizer"], template)


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
        record["model"] = {key: identity[key] for key in kept}
    if model is not None:
        record |= {
            "attention": model.config.get_text_config(decoder=True)._attn_implementation,
            "device": _device_kind(model),
            "dtype": str(model.dtype).removeprefix("torch."),
        }
    if prompts is not None:
        record["template_hash"] = artifacts.provenance(prompts)["template_hash"]
    return record


def _device_kind(model: "PreTrainedModel") -> str:
    import torch

    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type
