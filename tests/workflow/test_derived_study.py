"""A derived model goes through the workflow; its results are those of a model whose files were put together by hand."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from project import Project, jobs, shared, small_study
from safetensors.numpy import load_file, save_file

from safetyheads.artifacts.provenance import provenance

MIXED, BY_HAND = (f"ships/{model}/neutral/plainly/undifferentiated" for model in ("mixed", "by_hand"))


@pytest.fixture(scope="session")
def derived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`mixed` has the attention of `other`, whose weights are all different, and the rest of `tiny`."""
    return shared(tmp_path_factory, "derived", derive)


def derive(folder: Path) -> Project:
    project = Project.create(folder)
    tiny = load_file(project.folder / "tiny_a" / "model.safetensors")
    other = {name: weights * np.float32(1.5) for name, weights in tiny.items()}
    by_hand = {name: other[name] if ".self_attn." in name else weights for name, weights in tiny.items()}
    for name, weights in (("other", other), ("by_hand", by_hand)):
        shutil.copytree(project.folder / "tiny_a", project.folder / name)
        save_file(weights, project.folder / name / "model.safetensors", {"format": "pt"})
    settings = small_study()
    settings["models"] |= {name: {"path": name, "dtype": "float32"} for name in ("other", "by_hand")}
    settings["models"]["mixed"] = {"attention_from": "other", "rest_from": "tiny", "dtype": "float32"}
    settings["studies"]["main"]["models"] = ["mixed", "by_hand"]
    project.configure(settings)
    made = project.make(f"results/{MIXED}.parquet", f"results/{BY_HAND}.parquet")
    assert made["models"] == 4
    return project


def test_scores_are_those_of_the_model_made_by_hand(derived: Project) -> None:
    mixed, by_hand = (derived.read(name).drop(columns="model") for name in (MIXED, BY_HAND))
    assert mixed.equals(by_hand)
    assert mixed["score"].abs().max() > 0


def test_only_the_recipe_is_written(derived: Project) -> None:
    found, other, tiny = (derived.describe(name) for name in ("mixed", "other", "tiny"))
    expected = {f"attention_from/{name}": sha for name, sha in other["files"].items()}
    assert found["files"] == expected | {f"rest_from/{name}": sha for name, sha in tiny["files"].items()}
    assert found["attention_from"]["model"] == "other"
    assert found["tokenizer_sha256"] == tiny["tokenizer_sha256"]
    record = provenance(derived.results / f"{MIXED}.parquet")["model"]
    assert record["files"] == found["files"]
    assert record["rest_from"] == {"model": "tiny", "repo": None, "revision": None}
    assert sorted(path.name for path in (derived.results / "models").iterdir()) == [
        *("by_hand.json", "mixed.json", "other.json", "tiny.json")
    ]


def test_another_donor_makes_what_depends_on_it_again(derived: Project, tmp_path: Path) -> None:
    project = derived.copy(tmp_path / "project")
    path = project.folder / "other" / "model.safetensors"
    save_file({name: weights * np.float32(2) for name, weights in load_file(path).items()}, path, {"format": "pt"})
    planned = jobs(project.run(f"results/{MIXED}.parquet", f"results/{BY_HAND}.parquet", "--dry-run").output)
    assert planned == {"models": 2, "checks": 1, "prompts": 1, "ships": 1}
