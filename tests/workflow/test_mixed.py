"""Cells that were made in different numbers are not compared, unless that is allowed; then the page says so."""

import shutil
from pathlib import Path

from project import Project, small_study

MINE = "results/completions/tiny/neutral/plainly/undifferentiated/mine/short.parquet"
PLAIN = "results/completions/tiny/neutral/plainly/plain/none/short.parquet"


def test_float32_and_bfloat16_are_not_compared_unless_that_is_allowed(base: Project, tmp_path: Path) -> None:
    project, other = (base.copy(tmp_path / name) for name in ("project", "other"))
    settings = small_study()
    settings["models"]["tiny"]["dtype"] = "bfloat16"
    other.configure(settings)
    assert other.make(MINE) == {"checks": 1, "completions": 1}
    shutil.copy(other.folder / MINE, project.folder / MINE)
    refused = project.run()
    assert refused.status != 0
    assert f"{MINE}: dtype bfloat16 (plain: float32)" in refused.output
    assert f"Make them anew: snakemake --cores 1 --configfile {project.folder}/study.yaml --forcerun" in refused.output
    assert "Traceback" not in (project.results / "logs" / "rates.log").read_text(encoding="utf-8")
    project.configure(small_study() | {"compute": {"mixed": True}})
    made = ("rates", "agreement", "effects", "concentration", "noise", "report", "all")
    assert project.make() == dict.fromkeys(made, 1)
    page = (project.results / "report" / "index.html").read_text(encoding="utf-8")
    assert "Mixed conditions" in page
    assert "dtype bfloat16 (plain: float32)" in page


def test_cells_that_the_configuration_does_not_have_any_more_are_named_before_the_run(
    base: Project, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    assert "are no longer in it" not in project.run("--dry-run").output
    settings = small_study()
    settings["studies"]["main"]["plans"].remove("mine")
    project.configure(settings)
    output = project.run("--dry-run").output
    assert output.count("results/rates.parquet has rates of 2 cells that this configuration does not have") == 1
    assert "tiny/neutral/plainly/undifferentiated/mine/short/own" in output
