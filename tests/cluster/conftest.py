"""One Slurm, and the results of the same study without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from project import Project, Settings, small_study
from slurm import CPU_PARTITION, PARTITION, CannotStart, Slurm, slurm

STUDY = "results/rates.parquet"
FURTHER = [
    f"results/{path}.parquet"
    for path in (
        "ships/tiny/neutral/plainly/scaling",
        "sahara/tiny/neutral/plainly/scaling",
        "completions/tiny/neutral/plainly/scaling/mine/short",
    )
]


def settings() -> Settings:
    """All stages, in batches of one row: there are many, so that a job is often in the middle."""
    study = small_study()
    study["decodings"]["short"] = {"top_k": 5, "samples": 4, "max_new_tokens": 8}
    study["compute"] = {"token_budget": 1}
    study["studies"]["main"] |= {"judges": ["paper"], "plans": ["none", "mine", "ships-1", "sahara-2"]}
    return study


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """The running Slurm."""
    try:
        with slurm(tmp_path_factory.mktemp("slurm")) as started:
            yield started
    except CannotStart as reason:
        pytest.skip(f"No Slurm can be started: {reason}.")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The study, not run yet, with the words of the test's cluster in its profile."""
    project = Project.create(tmp_path_factory.mktemp("fresh") / "project", settings())
    project.write_queries("neutral.csv", 12)
    profile = "profiles/slurm/config.yaml"
    project.edit(profile, "gpu_partition: gpu ", f"gpu_partition: {PARTITION} ")
    project.edit(profile, "cpu_partition: gpu ", f"cpu_partition: {CPU_PARTITION} ")
    project.edit(profile, "status: sacct ", "status: squeue ")
    project.edit(profile, "status-checks: 30", "status-checks: 1")
    return project


@pytest.fixture(scope="session")
def local(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same study run on this machine, without Slurm."""
    project = fresh.copy(tmp_path_factory.mktemp("local") / "project")
    project.make(STUDY, *FURTHER)
    return project


@pytest.fixture(scope="session")
def prepared(local: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The local project without what `FURTHER` names."""
    project = local.copy(tmp_path_factory.mktemp("prepared") / "project")
    for path in FURTHER:
        (project.folder / path).unlink()
    return project


@pytest.fixture
def project(prepared: Project, tmp_path: Path) -> Project:
    """A copy of the prepared project."""
    return prepared.copy(tmp_path / "project")
