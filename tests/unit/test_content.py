"""Sums of files: of contents alone, and read again only where a file may have changed."""

import json
import os
from pathlib import Path

import pytest

from safetyheads.jobs.content import file_sum, folder_sum


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "sums"


def test_a_file_that_is_not_there_has_no_sum(tmp_path: Path) -> None:
    assert file_sum(tmp_path / "none") == "" == folder_sum(tmp_path, "m", tmp_path / "sums")


def test_an_equal_folder_elsewhere_has_the_same_sum(folder: Path, memory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert folder_sum(folder, "m", memory) == folder_sum(other, "m", memory) == folder_sum(other, "n", memory)


def test_a_known_file_is_not_read_again_until_it_may_have_changed(folder: Path, memory: Path) -> None:
    right = folder_sum(folder, "m", memory)
    place = memory / "m.json"
    remembered = json.loads(place.read_text())
    remembered["model.safetensors"]["sum"] = "made up"
    place.write_text(json.dumps(remembered))
    assert folder_sum(folder, "m", memory) != right, "what is remembered was not used"
    os.utime(folder / "model.safetensors", (1, 1))
    assert folder_sum(folder, "m", memory) == right


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"config.json": 3}', '{"config.json": {"sum": "x"}}'])
def test_a_damaged_memory_is_as_none(folder: Path, memory: Path, damage: str) -> None:
    right = folder_sum(folder, "m", memory)
    (memory / "m.json").write_text(damage)
    assert folder_sum(folder, "m", memory) == right


def test_a_memory_that_cannot_be_written_is_no_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert folder_sum(folder, "m", tmp_path / "file" / "sums")


@pytest.mark.parametrize("name", ["generation_config.json", "additional_chat_templates/tools.jinja", "vocab.txt"])
def test_a_file_more_is_another_sum(folder: Path, memory: Path, name: str) -> None:
    before = folder_sum(folder, "m", memory)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    assert folder_sum(folder, "m", memory) != before
    (folder / name).unlink()
    assert folder_sum(folder, "m", memory) == before


def test_files_that_no_model_is_read_from_do_not_count(folder: Path, memory: Path) -> None:
    before = folder_sum(folder, "m", memory)
    (folder / "README.md").touch()
    assert folder_sum(folder, "m", memory) == before


def test_a_large_model_is_told_of_as_it_is_read(
    folder: Path, memory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetyheads.jobs.content.LARGE", 10)
    folder_sum(folder, "m", memory)
    assert f"Reading the files of model m in {folder}" in capsys.readouterr().err
    folder_sum(folder, "m", memory)
    assert capsys.readouterr().err == ""
