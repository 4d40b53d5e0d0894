"""The same inputs give the same bytes, in whatever folder, batches, shards or attempts they were worked on."""

from pathlib import Path

import numpy as np
import pytest
from project import Project, kill_within_job, parts, shared, small_study

CELL = "completions/tiny/neutral/plainly/undifferentiated/mine/sampled"
CUTS = ((64, 1), (1, 1), (1, 3))  # rows of a batch, shards


def test_two_runs_from_scratch_in_two_folders_are_byte_identical(base: Project, tmp_path: Path) -> None:
    again = Project.create(tmp_path / "elsewhere" / "project")
    again.make()
    assert again.artefacts() == base.artefacts()
    for name in ("models/tiny.json", "report/index.html"):
        assert (again.results / name).read_bytes() == (base.results / name).read_bytes()


def cut(project: Project, rows: int, shards: int) -> None:
    """64 completions, of 16 prompts with 4 samples, in batches of so many rows and so many jobs."""
    settings = small_study()
    settings["decodings"]["sampled"] = {"top_k": 5, "samples": 4, "max_new_tokens": 8}
    settings["compute"] = {"token_budget": {1: 1, 8: 300}.get(rows, 8192), "shards": shards}
    project.configure(settings)


@pytest.fixture(scope="session")
def sixteen(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small study with 16 queries, up to the prompts."""

    def run(folder: Path) -> Project:
        project = base.copy(folder)
        project.write_queries("neutral.csv", 16)
        project.make("results/prompts/tiny/neutral/plainly.parquet")
        return project

    return shared(tmp_path_factory, "sixteen", run)


@pytest.fixture(scope="session")
def completed(
    sixteen: Project, uninterrupted: Project, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, int], Project]:
    """The same 64 completions, cut up in several ways; one row at a time is the run that nothing interrupts."""

    def run(folder: Path, rows: int, shards: int) -> Project:
        project = sixteen.copy(folder)
        cut(project, rows, shards)
        result = project.run(f"results/{CELL}.parquet")
        assert result.status == 0, result.output[-5000:]
        batches = 64 // rows
        assert f" {-(-batches // shards)}/{-(-batches // shards)} " in result.output  # what the first job's bar counts
        return project

    others = {
        (rows, shards): shared(
            tmp_path_factory, f"completed-{rows}-{shards}", lambda folder, cut=(rows, shards): run(folder, *cut)
        )
        for rows, shards in CUTS
        if (rows, shards) != (1, 1)
    }
    return {(1, 1): uninterrupted, **others}


def test_sampled_completions_are_the_same_one_row_or_64_rows_at_a_time(
    completed: dict[tuple[int, int], Project],
) -> None:
    together, alone = (completed[rows, 1].read(CELL) for rows in (64, 1))
    assert len(together) == 64
    assert together["token_ids"].map(tuple).tolist() == alone["token_ids"].map(tuple).tolist()
    rest = ["token_ids", "first_kl"]
    assert together.drop(columns=rest).equals(alone.drop(columns=rest)), "likelihoods, too, to the last bit"
    np.testing.assert_allclose(together["first_kl"], alone["first_kl"], rtol=1e-4)
    assert together["token_ids"].map(tuple).nunique() > 16  # samples differ


@pytest.mark.parametrize(("rows", "shards"), [cut for cut in CUTS if cut[1] > 1])
def test_shards_give_the_bytes_of_one_job(completed: dict[tuple[int, int], Project], rows: int, shards: int) -> None:
    whole, parted = (completed[rows, count].results / f"{CELL}.parquet" for count in (1, shards))
    assert whole.read_bytes() == parted.read_bytes()
    assert completed[rows, shards].temporary_files() == []


def test_jobs_say_which_shard_they_make(sixteen: Project, tmp_path: Path) -> None:
    project = sixteen.copy(tmp_path / "project")
    cut(project, 64, 3)
    output = project.run(f"results/{CELL}.parquet", "--dry-run").output
    for shard in range(3):
        assert output.count(f"undifferentiated of mine, sampled, shard {shard}-of-3\n") == 1


KILLED = (CELL, "ships/tiny/neutral/plainly/undifferentiated", "sahara/tiny/neutral/plainly/undifferentiated")


@pytest.fixture(scope="session")
def uninterrupted(sixteen: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """What jobs that may be killed make, one row at a time, if they are not."""

    def run(folder: Path) -> Project:
        project = sixteen.copy(folder)
        cut(project, 1, 1)
        project.make(*(f"results/{cell}.parquet" for cell in KILLED))
        return project

    return shared(tmp_path_factory, "uninterrupted", run)


@pytest.mark.parametrize(("cell", "made"), list(zip(KILLED, (40, 3, 2))))
def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    cell: str, made: int, sixteen: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    project = sixteen.copy(tmp_path / "project")
    cut(project, 1, 1)
    kill_within_job(project, cell, made)
    assert not (project.results / f"{cell}.parquet").exists()
    assert project.run("--unlock").status == 0
    assert project.make(f"results/{cell}.parquet") == {cell.split("/")[0]: 1}
    assert (project.results / f"{cell}.parquet").read_bytes() == (
        uninterrupted.results / f"{cell}.parquet"
    ).read_bytes()
    assert project.temporary_files() == []


def test_who_tries_another_token_budget_in_between_ends_with_what_there_was(
    sixteen: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    project = sixteen.copy(tmp_path / "project")
    cut(project, 1, 1)
    kill_within_job(project, CELL, 57)  # of 64
    made = {path: path.stat().st_mtime_ns for path in parts(project, CELL)}
    cut(project, 8, 1)
    assert project.run("--unlock").status == 0
    kill_within_job(project, CELL, len(made) + 1)
    cut(project, 1, 1)
    assert project.run("--unlock").status == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    project.make(f"results/{CELL}.parquet")
    same = (folder.results / f"{CELL}.parquet" for folder in (project, uninterrupted))
    assert len({path.read_bytes() for path in same}) == 1
    assert project.temporary_files() == []


def test_shards_of_other_batches_are_not_put_together(
    sixteen: Project, completed: dict[tuple[int, int], Project], tmp_path: Path
) -> None:
    project = sixteen.copy(tmp_path / "project")
    first = project.results / f"{Path(CELL).parent}/.sampled.0-of-3.parquet"
    cut(project, 1, 3)
    project.make(f"results/{first.relative_to(project.results)}", "--notemp")
    cut(project, 64, 3)
    refused = project.run(f"results/{CELL}.parquet")
    assert refused.status != 0
    assert "made with different `compute: token_budget`" in refused.output
    assert f"rm results/{first.relative_to(project.results)} " in refused.output
    first.unlink()
    project.make(f"results/{CELL}.parquet")
    found, expected = (folder.results / f"{CELL}.parquet" for folder in (project, completed[64, 1]))
    assert found.read_bytes() == expected.read_bytes()
    assert project.temporary_files() == []


@pytest.mark.parametrize("cell", [CELL, KILLED[-1]])
def test_two_copies_of_a_job_at_once_give_the_bytes_of_one(
    cell: str, sixteen: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    project = sixteen.copy(tmp_path / "project")
    cut(project, 1, 1)
    # An outdated output would be removed by one Snakemake while the other asks, in two steps, whether it is there and
    # may be written: it calls what is gone write-protected. That race is Snakemake's, so nothing is there at the start.
    (project.results / f"{cell}.parquet").unlink(missing_ok=True)
    copies = [project.start(f"results/{cell}.parquet", "--nolock") for _ in range(2)]
    outputs = [copy.communicate(timeout=600)[0] for copy in copies]
    assert [copy.returncode for copy in copies] == [0, 0], "\n".join(outputs)[-5000:]
    assert (project.results / f"{cell}.parquet").read_bytes() == (
        uninterrupted.results / f"{cell}.parquet"
    ).read_bytes()
    assert project.temporary_files() == []
