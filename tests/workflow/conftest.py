"""The small study, run once; tests that change something take a copy of it."""

import fcntl
import os
from pathlib import Path

import pytest
from project import Project


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small study, run from scratch, once for all of pytest's workers. Copy it to change anything."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with (folder / "base.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "base" / "is-run").exists():
            return Project(folder / "base")
        project = Project.create(folder / "base")
        project.make()
        (folder / "base" / "is-run").touch()
        return project


@pytest.fixture
def project(base: Project, tmp_path: Path) -> Project:
    """A copy of the small study that was run."""
    return base.copy(tmp_path / "project")
