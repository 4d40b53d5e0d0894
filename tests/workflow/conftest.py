"""The small study, run once; tests that change something take a copy of it."""

from pathlib import Path

import pytest
from project import Project, shared


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small study, run from scratch. Copy it to change anything."""

    def run(folder: Path) -> Project:
        project = Project.create(folder)
        project.make()
        return project

    return shared(tmp_path_factory, "base", run)


@pytest.fixture
def project(base: Project, tmp_path: Path) -> Project:
    """A copy of the small study that was run."""
    return base.copy(tmp_path / "project")
