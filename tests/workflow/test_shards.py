"""`shards: auto` gives large cells several jobs and small ones one, tells the hours once, and changes no byte."""

from pathlib import Path

import pytest
from project import Project, shared, small_study

SINGLE = "completions/tiny/neutral/plainly/undifferentiated/single/short"
MINE = "completions/tiny/neutral/plainly/undifferentiated/mine/short"
HEADLINE = "Estimate for the whole study"


def slow(project: Project, shards: int | str) -> None:
    """Configure a machine that takes two hours for `single`: 96 completions, each beside its plain row."""
    settings = small_study()
    settings["studies"]["main"]["plans"] = ["none", "single", "mine"]
    settings["compute"] = {"token_budget": 60, "shards": shards, "speed": {"device": "cpu", "generation": 1.3e-7}}
    project.configure(settings)


@pytest.fixture(scope="session")
def runs(base: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[int | str, tuple[Project, str]]:
    """`single` with one shard, and with as many as the slow machine needs; what was printed."""

    def run(folder: Path, shards: int | str) -> Project:
        project = base.copy(folder)
        slow(project, shards)
        result = project.run(f"results/{SINGLE}.parquet")
        assert result.status == 0, result.output[-5000:]
        (folder / "printed").write_text(result.output, encoding="utf-8")
        return project

    found = {}
    for shards in (1, "auto"):
        project = shared(tmp_path_factory, f"shards-{shards}", lambda folder, number=shards: run(folder, number))
        found[shards] = (project, (project.folder / "printed").read_text(encoding="utf-8"))
    return found


def test_a_large_cell_is_shared(runs: dict[int | str, tuple[Project, str]]) -> None:
    assert ", shard 1-of-2" in runs["auto"][1]
    assert "Put together: tiny, neutral (plainly), undifferentiated of single, short" in runs["auto"][1]
    assert ", shard " not in runs[1][1]


def test_the_file_is_that_of_one_job(runs: dict[int | str, tuple[Project, str]]) -> None:
    one, several = ((runs[shards][0].results / f"{SINGLE}.parquet").read_bytes() for shards in (1, "auto"))
    assert one == several
    assert runs["auto"][0].temporary_files() == []


def test_the_hours_are_told_once_and_not_by_jobs(runs: dict[int | str, tuple[Project, str]]) -> None:
    for _, output in runs.values():
        assert output.count(HEADLINE) == 1


@pytest.mark.parametrize(("shards", "jobs"), [("auto", 0), (3, 3)])
def test_a_small_cell_is_shared_only_if_a_count_says_so(
    shards: int | str, jobs: int, base: Project, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    slow(project, shards)
    assert project.run(f"results/{MINE}.parquet", "--dry-run").output.count("of mine, short, shard ") == jobs


def test_a_study_of_minutes_tells_no_hours(base: Project) -> None:
    assert HEADLINE not in base.run("--dry-run").output
