"""The real Snakemake on folders of two families that have little in common, by `path:`."""

from pathlib import Path

import pytest
from members import with_tokenizer
from project import Project, small_study
from registry import FAMILIES, HEADS, LAYERS

from safetyheads import artifacts

CHOSEN = {"GPT-OSS": "ships-1", "OPT": "sahara-1"}
"""And the plan that each is run with."""


@pytest.mark.slow
def test_folders_of_families_go_through_all_stages(tmp_path: Path) -> None:
    settings = small_study()
    settings["models"] = {name: {"path": name} for name in CHOSEN}
    common = settings["studies"].pop("main") | {"judges": ["paper"]}
    for name, plan in CHOSEN.items():
        settings["studies"][name] = common | {"models": [name], "plans": [plan]}
    settings["attribution"]["steps"] = 1
    project = Project.create(tmp_path / "project", settings)
    for family in FAMILIES:
        if family.name in CHOSEN:
            with_tokenizer(family, project.folder / family.name)
    project.make()
    for name, attention in (("GPT-OSS", "eager"), ("OPT", "sdpa")):
        (scores,) = (
            path for stage in ("ships", "sahara") for path in (project.results / stage / name).rglob("*.parquet")
        )
        for path in (scores, *(project.results / "completions" / name).rglob("*.parquet")):
            assert artifacts.provenance(path)["attention"] == attention
    cell = "neutral/plainly/undifferentiated"
    assert len(project.read(f"ships/GPT-OSS/{cell}")) == 3 * LAYERS * HEADS
    assert project.read(f"sahara/OPT/{cell}")["selected"].sum() == 1
    assert set(project.read("rates")["model"]) == set(CHOSEN)
    assert (project.results / "report" / "index.html").is_file()
