"""A stand-in for Hugging Face on 127.0.0.1, for the real huggingface_hub client: repositories are folders.

Small files come from the hub itself, large ones (safetensors) by a redirect to another address, as from a CDN.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")


class Answer(NamedTuple):
    """What a request is refused with."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass
class Request:
    """One request that was answered, and how many bytes of a file went out."""

    method: str
    path: str
    token: str | None
    first: int = 0
    sent: int = 0


@dataclass
class StandIn:
    """The hub: its repositories, what it was asked for, and what it refuses.

    `refuse(method, path)` gives the answer to a request that is not to be served. `tampered` files are sent with their
    last byte changed, `cut` ones without it. If `xet` is set, large files are said to lie in Xet, at this address. Of
    large files, no more than `stop_at` bytes are sent while it is set: then the server is silent, or with `breaks`, the
    connection does, and the next one gets so many bytes more.
    """

    repositories: dict[str, Path]
    commits: dict[str, str] = field(
        default_factory=dict
    )  # revisions of all repositories; main if nothing else is given
    refuse: Callable[[str, str], Answer | None] = lambda method, path: None
    tampered: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    xet: str = ""
    stop_at: int | None = None
    ranges: bool = True
    breaks: int = 0
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    cdn: str = ""

    def commit(self, revision: str) -> str | None:
        commits = self.commits or {"main": COMMIT}
        return commits.get(revision, revision if revision in commits.values() else None)

    def sent(self, ending: str = ".safetensors") -> int:
        """Bytes of files of this ending that were sent."""
        return sum(request.sent for request in self.requests if request.path.endswith(ending))

    def asked(self, *parts: str) -> list[Request]:
        """The requests whose path holds one of these."""
        return [request for request in self.requests if any(part in request.path for part in parts)]


def always(status: int, **headers: str) -> Callable[[str, str], Answer]:
    """Refuse everything: `always(429, Retry_After="1")`."""
    return lambda *_: Answer(status, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def serving(**repositories: Path) -> Iterator[StandIn]:
    """A hub with these repositories of the owner `some`: `serving(model=folder)` has some/model."""
    stand_in = StandIn({f"some/{name}": folder for name, folder in repositories.items()})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler(stand_in)) for handler in (_hub, _cdn)]
    stand_in.url, stand_in.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield stand_in
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("Authorization")
        self.request_ = Request(self.command, path, token)
        self.hub.requests.append(self.request_)
        refused = self.hub.refuse(self.command, path)
        if refused is not None:
            self.answer(refused.status, refused.headers)
        else:
            self.serve(path)

    do_HEAD = do_GET

    serve: Callable[[str], None]  # what is not refused: by each of the two servers

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, file: Path, headers: Mapping[str, str], *, slow: bool) -> None:
        content = file.read_bytes()
        if file.name in self.hub.tampered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if file.name in self.hub.cut:
            content = content[:-1]
        status, asked = 200, self.headers.get("Range")
        if asked is not None and self.hub.ranges:
            whole, (begin, _, end) = len(content), asked.removeprefix("bytes=").partition("-")
            status, first, last = 206, int(begin), min(int(end or whole), whole - 1)
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{whole}"}
            self.request_.first, content = first, content[first : last + 1]
        self.answer(status, {**headers, "Content-Length": str(len(content)), "Accept-Ranges": "bytes"})
        if self.command == "HEAD":
            return
        while self.request_.sent < len(content):
            stop = self.hub.stop_at if slow else None
            at = self.request_.first + self.request_.sent
            if stop is not None and at >= stop:
                if self.hub.breaks:
                    self.hub.stop_at = stop + self.hub.breaks
                    self.close_connection = True
                    return
                time.sleep(0.02)
                continue
            upto = self.request_.sent + min(2**15, stop - at if stop is not None else 2**15)
            chunk = content[self.request_.sent : upto]
            try:
                self.wfile.write(chunk)
                self.wfile.flush()
            except OSError:  # the client has gone
                return
            self.request_.sent += len(chunk)

    def log_message(self, *_: object) -> None:
        pass


def _hub(stand_in: StandIn) -> type[_Handler]:
    class Hub(_Handler):
        hub = stand_in

        def serve(self, path: str) -> None:
            listing = path.startswith("/api/")
            parts = path.removeprefix("/api").strip("/").split("/")
            if parts[0] in ("models", "datasets"):
                parts = parts[1:]
            folder = stand_in.repositories.get("/".join(parts[:2]))
            if folder is None:
                return self.answer(404, {"X-Error-Code": "RepoNotFound"})
            if len(parts) > 2 and parts[2] == "xet-read-token":
                expires = str(int(time.time()) + 3600)
                where = {
                    "X-Xet-Cas-Url": stand_in.xet,
                    "X-Xet-Access-Token": "of-xet",
                    "X-Xet-Token-Expiration": expires,
                }
                return self.answer(200, where)
            what, revision = parts[2:4] if len(parts) > 3 else ("revision", "main")
            name = "/".join(parts[4:])
            commit = stand_in.commit(revision)
            if commit is None:
                return self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            if listing:
                return self.answer(200, {"Content-Type": "application/json"}, _listing(what, parts, folder, commit))
            return self.resolve(folder / name, commit)

        def resolve(self, file: Path, commit: str) -> None:
            headers = {"X-Repo-Commit": commit}
            if not file.is_file():
                return self.answer(404, {**headers, "X-Error-Code": "EntryNotFound"})
            if file.suffix not in LARGE:
                return self.send_file(file, {**headers, "ETag": f'"{_git_hash(file)}"'}, slow=False)
            digest = sha256(file.read_bytes()).hexdigest()
            where = f"{stand_in.cdn}/{file.parent.name}/{file.name}?Signature=of-the-CDN"
            linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(file.stat().st_size)}
            if stand_in.xet:
                token = f"{stand_in.url}/api/models/some/{file.parent.name}/xet-read-token/{commit}"
                linked |= {"X-Xet-Hash": digest, "X-Xet-Refresh-Route": token}
            return self.answer(302, {**headers, **linked, "ETag": '"of-the-redirect"', "Location": where})

    return Hub


def _cdn(stand_in: StandIn) -> type[_Handler]:
    class Cdn(_Handler):
        hub = stand_in

        def serve(self, path: str) -> None:
            _, parent, name = path.split("/")
            folder = next(folder for folder in stand_in.repositories.values() if folder.name == parent)
            self.send_file(folder / name, {"ETag": '"of-the-CDN"'}, slow=True)

    return Cdn


def _listing(what: str, parts: list[str], folder: Path, commit: str) -> bytes:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if what != "tree":
        siblings = [{"rfilename": str(file.relative_to(folder))} for file in files]
        return json.dumps({"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings}).encode()
    return json.dumps([_entry(file, folder) for file in files]).encode()


def _entry(file: Path, folder: Path) -> dict[str, object]:
    size = file.stat().st_size
    entry = {"type": "file", "path": str(file.relative_to(folder)), "size": size, "oid": _git_hash(file)}
    if file.suffix in LARGE:
        entry["lfs"] = {"oid": sha256(file.read_bytes()).hexdigest(), "size": size, "pointerSize": 130}
    return entry


def _git_hash(file: Path) -> str:
    content = file.read_bytes()
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()
