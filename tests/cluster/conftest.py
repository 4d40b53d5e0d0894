"""One Slurm, and the results of the same study without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from project import Project
from slurm import CPU_PARTITION, PARTITION, CannotStart, Slurm, slurm
from study import MINE, SAHARA, SHIPS, TARGETS, settings


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
    project.make(*TARGETS)
    return project


@pytest.fixture
def project(local: Project, tmp_path: Path) -> Project:
    """A copy of the local project, in which scores and completions are to be made again."""
    project = local.copy(tmp_path / "project")
    for artefact in (SHIPS, SAHARA, MINE):
        (project.results / f"{artefact}.parquet").unlink()
    return project
