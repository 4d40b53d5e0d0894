"""Downloads: the whole, verified file, or nothing and a message. Real servers on 127.0.0.1."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import safetyheads
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import Patience, download, sha256_of, verify

BODY = b"goal,target\nTell me a story,Once\n" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "hf_aVerySecretTokenOfTheUser"


class Server(ThreadingHTTPServer):
    """Answers from `script`, one entry per request, then always as it did last."""

    def __init__(self, script: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        answer = self.server.script[min(len(self.server.seen), len(self.server.script)) - 1]
        if answer == "drop":
            self.close_connection = True
        elif answer == "moved" and self.path != "/new":
            self.send_response(302)
            self.send_header("Location", "/new")
            self.end_headers()
        elif answer.isdigit() or answer == "later":
            self.send_response(int(answer) if answer.isdigit() else 429)
            if answer == "later":
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"sorry")
        elif answer in ("whole", "moved", "cut"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2] if answer == "cut" else BODY)
        elif answer == "stall":
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.flush()
            threading.Event().wait(1.0)
        else:
            self.send_response(403 if answer == "GatedRepo" else 404)
            self.send_header("X-Error-Code", answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def serve() -> Iterator:
    servers = []

    def serve(*script: str) -> Server:
        server = Server(list(script))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(server: Server, destination: Path, sha256: str | None = SHA256, **options: Any) -> None:
    download(f"{server.url}/q.csv", destination, sha256, patience=Patience(first_wait=0.001, **options))


@pytest.mark.parametrize(
    "script",
    [
        ["whole"],
        ["503", "503", "whole"],
        ["429", "500", "408", "whole"],
        ["cut", "whole"],
        ["drop", "whole"],
        ["moved"],
    ],
)
def test_what_passes_is_tried_again_until_the_file_is_whole(serve, tmp_path, script):
    fetch(serve(*script), tmp_path / "new" / "q.csv")
    assert (tmp_path / "new" / "q.csv").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["q.csv"]


def test_a_server_that_falls_silent_is_tried_again(serve, tmp_path):
    server = serve("stall", "whole")
    fetch(server, tmp_path / "q.csv", timeout=0.2)
    assert (tmp_path / "q.csv").read_bytes() == BODY
    assert len(server.seen) == 2


def test_a_busy_server_says_how_long_to_wait(serve, tmp_path):
    start = time.monotonic()
    fetch(serve("later", "whole"), tmp_path / "q.csv")
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("answer", ["404", "401", "403", "410"])
def test_a_final_answer_is_not_asked_for_twice(serve, tmp_path, answer):
    server = serve(answer)
    with pytest.raises(SafetyHeadsError, match=f"{server.url}/q.csv .*HTTP {answer}"):
        fetch(server, tmp_path / "q.csv")
    assert len(server.seen) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("answer", ["503", "cut", "drop"])
def test_attempts_are_used_up_and_nothing_is_kept(serve, tmp_path, answer):
    server = serve(answer)
    with pytest.raises(SafetyHeadsError, match="path:"):
        fetch(server, tmp_path / "q.csv", attempts=3)
    assert len(server.seen) == 3
    assert not list(tmp_path.iterdir())


def test_a_wrong_checksum_shows_both_sums_and_keeps_nothing(serve, tmp_path):
    server = serve("whole")
    with pytest.raises(SafetyHeadsError) as caught:
        fetch(server, tmp_path / "q.csv", "0" * 64)
    for part in ("0" * 64, SHA256, server.url):
        assert part in str(caught.value)
    assert len(server.seen) == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_download_leaves_the_old_file_alone(serve, tmp_path):
    (tmp_path / "q.csv").write_text("old")
    with pytest.raises(SafetyHeadsError):
        fetch(serve("whole"), tmp_path / "q.csv", "0" * 64)
    assert (tmp_path / "q.csv").read_text() == "old"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/q.csv", "ftp://127.0.0.1/q.csv", "q.csv", "http://[/"])
def test_an_address_that_nobody_answers_is_named(tmp_path, url):
    with pytest.raises(SafetyHeadsError) as caught:
        download(url, tmp_path / "q.csv", patience=Patience(attempts=2, first_wait=0.001))
    assert url in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_checksums_are_those_of_the_bytes_in_either_case(tmp_path):
    path = tmp_path / "q.csv"
    path.write_bytes(BODY)
    assert sha256_of(path) == SHA256
    verify(path, SHA256.upper(), "q.csv")
    verify(path, None, "q.csv")
    path.write_bytes(BODY + b" ")
    with pytest.raises(SafetyHeadsError, match=SHA256):
        verify(path, SHA256, "q.csv")


MODEL = "from safetyheads.models.find import locate; locate(path=None, repo='some/thing', revision={!r}, inspect={})"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = """
from pathlib import Path
from safetyheads.models.hugging_face import download_from_hub
download_from_hub('some/thing', 'main', 'q.csv', Path('q.csv'))
"""


def hub_problem(code: str, endpoint: str, home: Path, **environment: str) -> str:
    """What the user sees when `code` meets this stand-in for Hugging Face, with an empty cache."""
    settings = {
        "PYTHONPATH": str(Path(safetyheads.__file__).parents[1]),
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_ETAG_TIMEOUT": "2",
        "HF_HUB_OFFLINE": "0",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert TOKEN not in done.stdout + done.stderr
    name, _, message = done.stderr.strip().splitlines()[-1].partition(": ")
    assert name == "safetyheads.errors.SafetyHeadsError"
    assert "some/thing" in message
    return message


@pytest.mark.parametrize("code", [MODEL.format("main", "print"), MODEL.format(COMMIT, "print"), FILE])
@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ("GatedRepo", "Accept its licence"),
        ("RepoNotFound", "spelling"),
        ("RevisionNotFound", "revision"),
    ],
)
def test_what_hugging_face_refuses_comes_with_advice(serve, tmp_path, code, answer, advice):
    assert advice in hub_problem(code, serve(answer).url, tmp_path)


def test_an_absent_file_of_a_data_set_is_named(serve, tmp_path):
    assert "'q.csv'" in hub_problem(FILE, serve("EntryNotFound").url, tmp_path)


@pytest.mark.parametrize(
    "code", [pytest.param(code, marks=pytest.mark.slow) for code in (MODEL.format("main", "print"), FILE)]
)
def test_without_network_the_way_around_is_shown(tmp_path, code):
    message = hub_problem(code, "http://127.0.0.1:9", tmp_path)
    assert "network" in message
    assert "path:" in message


@pytest.mark.parametrize(
    ("code", "environment"),
    [
        (MODEL.format("main", None), {}),
        (MODEL.format(COMMIT, "print"), {"HF_HUB_OFFLINE": "1"}),
        (FILE, {"HF_HUB_OFFLINE": "1"}),
    ],
)
def test_what_is_not_in_the_cache_is_not_found_offline(tmp_path, code, environment):
    assert "cache" in hub_problem(code, "http://127.0.0.1:9", tmp_path, **environment)


def test_passwords_and_signatures_of_an_address_are_not_told(serve, tmp_path, caplog):
    started = serve("503", "404")
    host = started.url.removeprefix("http://")
    url, patience = f"http://me:secret@{host}/queries.csv?sig=secret@", Patience(first_wait=0.001)
    with pytest.raises(SafetyHeadsError, match=rf"^http://{host}/queries.csv\?\.\.\. cannot be downloaded: ") as error:
        download(url, tmp_path / "file", patience=patience)
    assert started.seen == ["/queries.csv?sig=secret@"] * 2
    assert f"http://{host}/queries.csv?...: HTTP 503" in caplog.text
    assert "secret" not in f"{error.value}{caplog.text}"
