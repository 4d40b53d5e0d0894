"""The real Snakemake on the folder of a family that is unlike Llama, by `path:`."""

from pathlib import Path

import pytest
from members import with_tokenizer
from project import Project, small_study
from registry import FAMILIES, HEADS, LAYERS

from safetyheads.artifacts.provenance import provenance

NAME = "GPT-OSS"


@pytest.mark.slow
def test_the_folder_of_a_family_goes_through_all_stages(tmp_path: Path) -> None:
    settings = small_study()
    settings["models"] = {NAME: {"path": NAME}}
    settings["studies"]["main"] |= {"judges": ["paper"], "models": [NAME], "plans": ["ships-1"]}
    project = Project.create(tmp_path / "project", settings)
    (family,) = (family for family in FAMILIES if family.name == NAME)
    with_tokenizer(family, project.folder / NAME)
    project.make()
    scores = "neutral/plainly/undifferentiated"
    for path in (project.results / "ships", project.results / "completions"):
        for artefact in path.rglob("*.parquet"):
            assert provenance(artefact)["attention"] == "eager"
    assert len(project.read(f"ships/{NAME}/{scores}")) == 3 * LAYERS * HEADS
    assert set(project.read("rates")["variant"]) == {"none", "ships-1"}
    assert (project.results / "report" / "index.html").is_file()
