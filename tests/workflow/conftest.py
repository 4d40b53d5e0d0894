"""The small study, run once; tests that change something take a copy of it."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from project import DATA, Project, shared


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


@pytest.fixture
def address() -> Iterator[str]:
    """Where tests/data is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(DATA))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
