"""A job's model and tokenizer: the files that were described, opened as the job was planned."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from safetyheads.artifacts import files
from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.loaded_model import model_of
from safetyheads.jobs.model_files import model_folder, tokenizer_of
from safetyheads.models.describe import describe


@pytest.fixture
def description(golden: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    files.write_json(path, describe(golden / "tiny_a", model="tiny", source="path"))
    return path


def config_of(golden: Path, results: Path) -> dict[str, object]:
    study = {
        "models": ["tiny"],
        "datasets": ["neutral"],
        "templates": ["direct"],
        "ablations": ["scaling"],
        "plans": ["none"],
        "decodings": ["greedy"],
        "judges": ["paper"],
    }
    return {
        "results": str(results),
        "models": {
            "tiny": {"path": str(golden / "tiny_a"), "dtype": "float32", "attention": "eager"},
            "taught": {"demo": True},
        },
        "datasets": {"neutral": {"path": str(golden / "queries.csv"), "query": "input"}},
        "compute": {"device": "cpu"},
        "studies": {"main": study},
    }


def test_a_model_and_its_tokenizer_are_opened_as_the_configuration_says(
    golden: Path, tmp_path: Path, description: Path
) -> None:
    settings = load_config(config_of(golden, tmp_path))
    assert model_folder(settings, "tiny") == golden / "tiny_a"
    assert model_folder(settings, "taught") == tmp_path / "models" / "taught"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    model = model_of(settings, "tiny", description, dtype="float32", attention="eager")
    assert torch.get_num_threads() == settings.compute.threads == 1
    torch.set_num_threads(before)
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")
    assert model.config._attn_implementation == "eager"
    tokenizer = tokenizer_of(settings, "tiny", description)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def test_a_missing_model_is_named(golden: Path, tmp_path: Path) -> None:
    settings = load_config(config_of(golden, tmp_path))
    gone = settings.model("tiny").model_copy(update={"path": str(tmp_path / "nowhere")})
    with pytest.raises(SafetyHeadsError, match="nowhere does not exist"):
        model_folder(settings.model_copy(update={"models": {"tiny": gone}}), "tiny")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_changed_after_the_model_was_described_is_not_used(golden: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(golden / "tiny_a", tmp_path / "model"))
    settings = load_config(config_of(golden, tmp_path) | {"models": {"tiny": {"path": str(folder)}}})
    description = tmp_path / "tiny.json"
    files.write_json(description, describe(folder, model="tiny", source="path"))

    def opened() -> object:
        if name == "tokenizer.json":
            return tokenizer_of(settings, "tiny", description)
        return model_of(settings, "tiny", description, dtype="bfloat16", attention="auto")

    (folder / name).touch()
    opened()
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    os.utime(folder / name, (0, 0))  # as `cp -p` and rsync may leave it
    with pytest.raises(SafetyHeadsError, match=rf"{name} is not the file that was described .* It changed"):
        opened()
    (folder / name).unlink()
    with pytest.raises(SafetyHeadsError, match=rf"{name}, which was there when .* is missing"):
        opened()


@pytest.mark.parametrize(("before", "again"), [("cpu", False), ("NVIDIA H100 80GB HBM3", True)])
def test_a_model_that_was_checked_on_another_kind_of_device_is_checked_again(
    before: str, again: bool, golden: Path, tmp_path: Path, description: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, checks = load_config(config_of(golden, tmp_path)), tmp_path / "checks.json"
    files.write_json(checks, {"record": {"device": before}})
    how = {"dtype": "float32", "attention": "sdpa", "checks": str(checks)}
    model_of(settings, "tiny", description, **how)
    monkeypatch.setattr("safetyheads.engine.probes.apart", lambda ours, theirs: torch.ones(2))
    with pytest.raises(SafetyHeadsError, match="ablating nothing") if again else nullcontext():
        model_of(settings, "tiny", description, **how)
