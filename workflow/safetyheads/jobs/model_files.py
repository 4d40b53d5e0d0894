"""The files of a job's model and its tokenizer: those that were described, unchanged since."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.models.describe import verify
from safetyheads.models.find import locate
from safetyheads.models.tokenizer import TOKENIZER_FILES, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def model_folder(settings: Config, name: str, revision: str | None = None, *, download: bool = False) -> Path:
    """Where the files of a model are, at `revision` or that of the configuration.

    Raises SafetyHeadsError if they are not there; with `download` they are fetched.
    """
    model = settings.model(name)
    if model.demo:
        return Path(settings.results) / "models" / name
    return locate(path=model.path, repo=model.repo, revision=revision or model.revision, download=download)


def tokenizer_of(settings: Config, name: str, description: Path) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer; `description` and errors are those of `described_folders`."""
    folder = described_folders(settings, name, description, tokenizer=True)["rest_from"]
    return load_tokenizer(folder, files.read_json(description)["tokenizer"], settings.chat_template(name))


def described_folders(settings: Config, name: str, description: Path, *, tokenizer: bool) -> dict[str, Path]:
    """A model's folder, after a look at the files of its tokenizer, or at all others.

    By role: a derived model has a folder for its attention besides that of the rest, which any other model has alone.
    `description` is `models/{name}.json`. Raises SafetyHeadsError if a file is not the one that was described.
    """
    described: Mapping[str, Any] = files.read_json(description)
    wanted = {
        file: sha for file, sha in described["files"].items() if (Path(file).name in TOKENIZER_FILES) == tokenizer
    }
    if not settings.sources(name):
        folder = model_folder(settings, name, described["revision"])
        verify(folder, wanted, description.stat().st_mtime)
        return {"rest_from": folder}
    folders = {}
    for role in ("rest_from",) if tokenizer else ("rest_from", "attention_from"):
        folders[role] = model_folder(settings, described[role]["model"], described[role]["revision"])
        own = {file.removeprefix(f"{role}/"): sha for file, sha in wanted.items() if file.startswith(f"{role}/")}
        verify(folders[role], own, description.stat().st_mtime)
    return folders
