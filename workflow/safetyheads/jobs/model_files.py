"""Find the files of a job's model and tokenizer, and check that they are still those that were described.

The job `models` writes a sum of each file into `models/{name}.json`. Later jobs compare, so that files that were
replaced in between are noticed instead of being mixed into one study.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetyheads.artifacts import files
from safetyheads.artifacts.schemas import DEMO_WEIGHTS
from safetyheads.config.load import Config
from safetyheads.models.describe import check_before_weights, verify
from safetyheads.models.find import locate
from safetyheads.models.tokenizer import is_of_tokenizer, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def model_folder(settings: Config, name: str, revision: str | None = None, *, download: bool = False) -> Path:
    """The folder of a model's files, at `revision` (if None, at that of the configuration).

    With `download`, files that are missing are fetched from Hugging Face. Raises SafetyHeadsError if the model is not
    there or cannot be fetched.
    """
    model = settings.model(name)
    if model.demo:
        return Path(settings.results, DEMO_WEIGHTS.format(model=name))
    inspect = partial(check_before_weights, chat_template=settings.chat_template(name)) if download else None
    return locate(path=model.path, repo=model.repo, revision=revision or model.revision, inspect=inspect)


def tokenizer_of(settings: Config, name: str, description: Path) -> "PreTrainedTokenizerBase":
    """Load a model's tokenizer. `description` is `models/{name}.json`.

    Raises SafetyHeadsError if one of its files is not the one that was described, or if it cannot be loaded.
    """
    folder = described_folders(settings, name, description, tokenizer=True)["rest_from"]
    return load_tokenizer(folder, files.read_json(description)["tokenizer"], settings.chat_template(name))


def described_folders(settings: Config, name: str, description: Path, *, tokenizer: bool) -> dict[str, Path]:
    """A model's folders by role, once its files have been checked against `description`, `models/{name}.json`.

    Checked are the files of the tokenizer if `tokenizer` is true, else all others. The role of most models' one folder
    is `rest_from`. A derived model has another one, `attention_from`, with the model that its attention weights come
    from; its tokenizer comes from `rest_from`. Raises SafetyHeadsError if a file is missing or is not the one that was
    described.
    """
    described: Mapping[str, Any] = files.read_json(description)
    wanted = {file: sha for file, sha in described["files"].items() if is_of_tokenizer(file) == tokenizer}
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
