"""The real Snakemake on folders of two families that have little in common, by `path:`."""

from pathlib import Path

import pytest
from members import with_tokenizer
from project import Project, small_study
from registry import FAMILIES, HEADS, LAYERS

from safetyheads import artifacts

CHOSEN = ["GPT-OSS", "OPT"]


@pytest.mark.slow
def test_folders_of_families_go_through_all_stages(tmp_path: Path) -> None:
    settings = small_study()
    settings["models"] = {name: {"path": name} for name in CHOSEN}
    settings["studies"]["main"] |= {"models": CHOSEN, "plans": ["ships-1", "sahara-1"], "judges": ["paper"]}
    settings["attribution"]["steps"] = 1
    project = Project.create(tmp_path / "project", settings)
    for family in FAMILIES:
        if family.name in CHOSEN:
            with_tokenizer(family, project.folder / family.name)
    project.make()
    for name, attention in zip(CHOSEN, ("eager", "sdpa")):
        cell = f"{name}/neutral/plainly/undifferentiated"
        assert len(project.read(f"ships/{cell}")) == 3 * LAYERS * HEADS
        assert project.read(f"sahara/{cell}")["selected"].sum() == 1
        for stage in ("ships", "sahara", "completions"):
            (path, *_) = (project.results / stage / name).rglob("*.parquet")
            assert artifacts.provenance(path)["attention"] == attention
        assert set(project.read("rates").query("model == @name")["plan"]) == {"none", "ships-1", "sahara-1"}
    assert (project.results / "report" / "index.html").is_file()
