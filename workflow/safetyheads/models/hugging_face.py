"""Fetch models and files from Hugging Face into its normal cache, by huggingface_hub, and check what came.

The small files of a model come first, so that a model that cannot be measured is refused before its weights are
fetched. Of an interrupted download, the files that are whole are kept. huggingface_hub never continues the part of a
file that another process began: on Lustre, GPFS and NFS file locks can fail silently, and two processes would write
into one part.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx2

from safetyheads.artifacts import files
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import PATIENCE, Patience, sha256_of, verify, without_secrets
from safetyheads.models.files import INDEX, weight_names
from safetyheads.models.hugging_face_errors import Wanted, asked_wait, hub_errors, may_pass, reason
from safetyheads.models.tensors import Header, read_header

T = TypeVar("T")
log = logging.getLogger(__name__)

Inspect = Callable[[Path, Callable[[], Mapping[str, Header]]], Any]
"""Looks at a model before its weights are fetched: at its folder, and, if it wants, at what its weights say."""

SMALL = ["*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt"]
"""The files that are fetched before the weights. Pickled weights (.bin, .pt) and code (.py) never are."""
OF_OTHER_FORMATS = ["*/*.json", "*/*.model"]
"""Files in folders belong to other formats of the model, such as onnx/. Only named chat templates are kept in one."""
ABANDONED = 24 * 3600.0
"""Seconds after which a part of a file is taken for abandoned, if nothing was written to it: its process was killed."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def snapshot(
    repo: str,
    revision: str | None,
    inspect: Inspect,
    *,
    patience: Patience = PATIENCE,
) -> Path:
    """The folder of a model in the cache, at `revision` (a branch, tag or commit; None is `main`).

    Files that are missing there are fetched. Before the weights are, `inspect(folder, headers)` is called, which can
    raise an error for a model that is not wanted. All small files are in `folder` then, and `headers()` asks for what
    the files of weights say of their tensors, by file; nothing where that cannot be asked or no weights are missing.
    `patience` says how often requests are tried that huggingface_hub itself does not repeat. The network is not used if
    HF_HUB_OFFLINE=1, or if `revision` is a commit and all files are in the cache. If the server does not answer, the
    commit of a branch or tag is taken from the cache, and the log says so. Raises SafetyHeadsError if the model cannot
    be fetched, lacks files, does not fit on the disk or has a wrong checksum.
    """
    from huggingface_hub import resolve_revision, snapshot_download

    asked = partial(_asked, Wanted("model", repo, revision), patience)
    commit = asked(resolve_revision, repo, revision=revision).resolved
    fetch = partial(asked, snapshot_download, repo, revision=commit)
    folder = Path(fetch(allow_patterns=SMALL, ignore_patterns=OF_OTHER_FORMATS))
    sizes = _listing(repo, folder)
    where = f"The repository {repo} (commit {folder.name[:12]})"
    if "config.json" not in sizes:
        raise SafetyHeadsError(f"{where} has no config.json: it does not hold a model of transformers.")
    weights = [name for name in weight_names(where, sizes, folder / INDEX) if name != INDEX]
    missing = [name for name in weights if not (folder / name).exists()]
    inspect(folder, partial(_headers, repo, folder, weights if missing else [], asked))
    _remove_abandoned(folder.parents[1] / "blobs")
    _check_space(folder, sum(sizes[name] or 0 for name in missing))
    # One file at a time: hf_xet fetches the parts of a file side by side anyway, and a kill loses no more than one.
    fetch(allow_patterns=weights, max_workers=1)
    for name in missing:
        _check_sum(folder / name, f"{name} of {repo} (commit {folder.name[:12]})")
    return folder


def _headers(repo: str, folder: Path, names: Sequence[str], asked: Callable[..., Any]) -> dict[str, Header]:
    """What files of weights say of their tensors, read from their beginnings alone; nothing if that fails.

    Files that are not in `folder`, the snapshot, yet are asked for it where they are, by `asked`.
    """
    from huggingface_hub import HfApi

    found: dict[str, Header] = {}
    for name in names:
        if (folder / name).exists():
            found[name] = read_header(folder / name)
            continue
        try:
            read = asked(HfApi().parse_safetensors_file_metadata, repo, name, revision=folder.name)
        except Exception as error:  # a mirror may not serve parts of files; the whole files are looked at later
            log.info("What %s holds is looked at when it is here (%s).", name, type(error).__name__)
            return {}
        found[name] = {key: {"dtype": str(of.dtype), "shape": list(of.shape)} for key, of in read.tensors.items()}
    return found


def cached(repo: str, revision: str | None) -> Path:
    """The folder of a model in the cache, without using the network. Raises SafetyHeadsError if it is not there."""
    from huggingface_hub import snapshot_download

    with hub_errors(Wanted("model", repo, revision)):
        only = ["config.json", INDEX]
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=only))


def cached_file(repo: str, revision: str | None, file: str) -> Path:
    """The path of a file of a model's repository in the cache, without using the network."""
    from huggingface_hub import hf_hub_download

    with hub_errors(Wanted("model", repo, revision, file)):
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=True))


def hub_file(repo: str, revision: str | None, file: str, kind: Literal["model", "dataset"] = "model") -> Path:
    """The path of a file of a repository in the cache, which is fetched if needed; its checksum is that of the hub."""
    from huggingface_hub import hf_hub_download

    wanted = Wanted(kind, repo, revision, file)
    path = Path(_asked(wanted, PATIENCE, hf_hub_download, repo, file, repo_type=kind, revision=revision))
    _check_sum(path, f"{file} of {repo} at revision {revision or 'main'}")
    return path


def download_from_hub(repo: str, revision: str | None, file: str, destination: Path, sha256: str | None = None) -> None:
    """Copy one file of a Hugging Face data set at `revision` to `destination`, through the normal Hugging Face cache.

    `sha256` is the checksum that it must have; None accepts any. Raises SafetyHeadsError if the file cannot be fetched,
    and for a wrong checksum; `destination` is then left as it was.
    """
    cached = hub_file(repo, revision, file, "dataset")
    verify(cached, sha256, f"{file} of the data set {repo} at revision {revision or 'main'}")
    files.replace(destination, lambda temporary: shutil.copyfile(cached, temporary))


def cached_sha256(path: Path) -> str | None:
    """The SHA-256 that a file of the Hugging Face cache must have, or None if the cache does not know it.

    A file of a snapshot is a link to a blob. Blobs of large files are named after their SHA-256, those of small ones
    after a git hash.
    """
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


def _asked(wanted: Wanted, patience: Patience, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function of huggingface_hub, again and again as long as its errors may pass by themselves.

    Raises SafetyHeadsError, in words about `wanted`, for what goes wrong in the end.
    """
    with hub_errors(wanted):
        _limit_waits(patience.timeout)
        return patience.retrying(may_pass, reason, asked_wait)(call, *args, **kwargs)


@cache
def _limit_waits(timeout: float) -> None:
    """End requests without an answer after `timeout` seconds, where huggingface_hub would wait for ever."""
    from huggingface_hub import get_session, set_client_factory

    hooks = get_session().event_hooks["request"]

    def limit(request: httpx2.Request) -> None:
        limits = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            kind: timeout if seconds is None else seconds for kind, seconds in limits.items()
        }

    set_client_factory(lambda: httpx2.Client(event_hooks={"request": [*hooks, limit]}, follow_redirects=True))


def _listing(repo: str, folder: Path) -> dict[str, int | None]:
    """The files at the top of a snapshot's repository (not those in folders), and their sizes in bytes."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = {file.path: file.size for file in get_cached_repo_tree(repo, revision=folder.name)}
    except CachedRepoTreeNotFoundError:  # offline, with a cache of an older huggingface_hub
        return {path.name: path.stat().st_size for path in folder.iterdir()}
    return {name: size for name, size in files.items() if "/" not in name}


def _remove_abandoned(blobs: Path) -> None:
    """Delete the parts of files that killed processes left behind: nobody continues them, and they can be gigabytes."""
    for part in blobs.glob("*.incomplete"):
        with suppress(OSError):  # another process was faster, or it is another user's
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink()


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SafetyHeadsError(
            f"{needed / 1e9:.1f} GB of weights are to be downloaded, but the disk of the Hugging Face cache, {folder}, "
            f"has {free / 1e9:.1f} GB left. Free some space, or set HF_HOME to a folder with enough of it."
        )


def _check_sum(path: Path, name: str) -> None:
    """Delete a file of the cache, and raise SafetyHeadsError, if its SHA-256 is not the one that the hub told.

    huggingface_hub compares only the sizes of files that come over plain HTTP.
    """
    expected = cached_sha256(path)
    found = sha256_of(path) if expected else None
    if found != expected:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise SafetyHeadsError(
            f"Wrong checksum for {name}: expected sha256 {expected}, found {found}. The file changed on its way here; "
            "nothing of it was kept. Run again; if it comes out the same, ask those who run the network's proxy or "
            "mirror."
        )


def _hide_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


for _module in ("file_download", "hf_api", "_snapshot_download", "utils._http"):
    # The addresses in huggingface_hub's warnings hold signatures, and credentials if HF_ENDPOINT has some.
    logging.getLogger(f"huggingface_hub.{_module}").addFilter(_hide_secrets)
