"""config/organisms.yaml: what is planted, and what a decoy does, is told apart by the numbers and by the page."""

from pathlib import Path

import pytest
from project import Project, shared

pytestmark = pytest.mark.long

MODELS = ("without_decoy", "with_decoy")


@pytest.fixture(scope="session")
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder)
        project.make(configfile="config/organisms.yaml")
        return project

    return shared(tmp_path_factory, "organisms", run)
