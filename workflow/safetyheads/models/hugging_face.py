"""Fetch models and files from Hugging Face into its normal cache, whole and with the right checksum.

huggingface_hub fetches: it goes on where a connection broke, takes the quicker way of Xet where there is one, and does
not rely on locks of files, which some file systems of clusters only seem to grant. The small files of a model come
first, so that a model that cannot be measured is refused before its weights are fetched.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from safetyheads.artifacts import files
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import PATIENCE, Patience, sha256_of, verify
from safetyheads.models.files import INDEX, weight_names
from safetyheads.models.hugging_face_errors import Wanted, asked_wait, cause_of, hub_errors, reason, status_of
from safetyheads.models.tensors import Header, read_header
from safetyheads.models.tokenizer import TEMPLATE_FOLDER

T = TypeVar("T")
log = logging.getLogger(__name__)

SMALL = (".json", ".jinja", ".model")
"""Endings of the files that are fetched besides the weights. Pickled weights (.bin, .pt) and code (.py) never are."""
VOCABULARIES = ("merges.txt", "vocab.txt")
FIRST = ["config.json", INDEX]
"""Fetched before all others: they say whether the model can be measured, and which files hold its weights."""

Inspect = Callable[[Path, Callable[[], Mapping[str, Header]]], Any]
"""Looks at a model before its weights are fetched: at its folder, and, if it wants, at what its weights say."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
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
    `patience` says how often requests are tried. The network is not used if HF_HUB_OFFLINE=1, or if `revision` is a
    commit and all files are in the cache. Raises SafetyHeadsError if the model cannot be fetched, lacks files, does not
    fit on the disk or has a wrong checksum.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(Wanted("model", repo, revision)):
        retry = _Retry(patience)
        commit = _commit(repo, revision or "main", retry)
        folder = Path(retry(snapshot_download, repo, revision=commit, allow_patterns=FIRST))
        commit, sizes = folder.name, _listing(repo, folder)
        where = f"The repository {repo} (commit {commit[:12]})"
        if "config.json" not in sizes:
            raise SafetyHeadsError(f"{where} has no config.json: it does not hold a model of transformers.")
        weights = [name for name in weight_names(where, sizes, folder / INDEX) if name != INDEX]
        small = [name for name in sizes if name.endswith(SMALL) or name in VOCABULARIES]
        retry(snapshot_download, repo, revision=commit, allow_patterns=[*small, f"{TEMPLATE_FOLDER}/*.jinja"])
        missing = [name for name in weights if not (folder / name).exists()]
        inspect(folder, partial(_headers, repo, folder, weights if missing else [], retry))
        _check_space(folder, sum(sizes[name] or 0 for name in missing))
        retry(snapshot_download, repo, revision=commit, allow_patterns=weights)
        for name in missing:
            _check_sum(repo, folder / name)
        return folder


def cached(repo: str, revision: str | None) -> Path:
    """The folder of a model in the cache, without using the network. Raises SafetyHeadsError if it is not there."""
    from huggingface_hub import snapshot_download

    with hub_errors(Wanted("model", repo, revision)):
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=FIRST))


def download_from_hub(repo: str, revision: str | None, file: str, destination: Path, sha256: str | None = None) -> None:
    """Copy one file of a Hugging Face data set at `revision` to `destination`, through the normal Hugging Face cache.

    `sha256` is the checksum that it must have; None accepts any. Raises SafetyHeadsError if the file cannot be fetched,
    and for a wrong checksum; `destination` is then left as it was.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(Wanted("dataset", repo, revision, file)):
        cached = Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
    verify(cached, sha256, f"{file} of the data set {repo} at revision {revision or 'main'}")
    files.replace(destination, lambda temporary: shutil.copyfile(cached, temporary))


def cached_sha256(path: Path) -> str | None:
    """The SHA-256 that a file of the Hugging Face cache must have, or None if the cache does not know it.

    A file of a snapshot is a link to a blob. Blobs of large files are named after their SHA-256, those of small ones
    after a git hash.
    """
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


def _commit(repo: str, revision: str, retry: "_Retry") -> str:
    """The commit that a revision stands for. Offline it is the revision itself, which the cache can resolve.

    If the server does not answer, the commit of this revision in the cache is used, and the log says so. The answer is
    also noted in the cache, as huggingface_hub does, so that later jobs find the same commit offline.
    """
    from huggingface_hub import HfApi, constants

    if _COMMIT.fullmatch(revision) or constants.is_offline_mode():
        return revision
    try:
        commit = str(retry(HfApi().model_info, repo, revision=revision, timeout=retry.patience.timeout).sha)
    except httpx2.HTTPError as error:
        if not _may_pass(error):
            raise
        try:
            folder = cached(repo, revision)
        except SafetyHeadsError:
            raise error from None
        log.warning("%s: going on with %s of the cache for %s of %s.", reason(error), folder.name, revision, repo)
        return folder.name
    ref = Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}", "refs", revision)
    ref.parent.mkdir(parents=True, exist_ok=True)
    files.replace(ref, lambda temporary: temporary.write_text(commit))
    return commit


def _listing(repo: str, folder: Path) -> dict[str, int | None]:
    """The files at the top of a snapshot's repository (not those in folders), and their sizes in bytes."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        files = {file.path: file.size for file in get_cached_repo_tree(repo, revision=folder.name)}
    except CachedRepoTreeNotFoundError:  # offline, with a cache of an older huggingface_hub
        return {path.name: path.stat().st_size for path in folder.iterdir()}
    return {name: size for name, size in files.items() if "/" not in name}


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SafetyHeadsError(
            f"{needed / 1e9:.1f} GB of weights are to be downloaded, but the disk of the Hugging Face cache, {folder}, "
            f"has {free / 1e9:.1f} GB left. Free some space, or set HF_HOME to a folder with enough of it."
        )


def _headers(repo: str, folder: Path, names: Sequence[str], retry: "_Retry") -> dict[str, Header]:
    """What files of weights say of their tensors, read from their beginnings alone; nothing if that fails.

    Files that are not in `folder`, the snapshot, yet are asked for it where they are.
    """
    from huggingface_hub import HfApi

    found: dict[str, Header] = {}
    for name in names:
        if (folder / name).exists():
            found[name] = read_header(folder / name)
            continue
        try:
            read = retry(HfApi().parse_safetensors_file_metadata, repo, name, revision=folder.name)
        except Exception as error:  # a mirror may not serve parts of files; the whole files are looked at later
            log.info("What %s holds is looked at when it is here (%s).", name, type(error).__name__)
            return {}
        found[name] = {key: {"dtype": str(of.dtype), "shape": list(of.shape)} for key, of in read.tensors.items()}
    return found


def _check_sum(repo: str, path: Path) -> None:
    """Raise SafetyHeadsError, and delete the file, if a file that was just fetched is not the one that was promised."""
    expected = cached_sha256(path)
    if expected is None or (found := sha256_of(path)) == expected:
        return
    path.resolve().unlink()
    path.unlink()
    raise SafetyHeadsError(
        f"Wrong checksum for {path.name} of {repo} (commit {path.parent.name[:12]}): expected sha256 {expected}, found "
        f"{found}. The file changed on its way here; nothing of it was kept. Run again; if it comes out the same, ask "
        "those who run the network's proxy or mirror."
    )


def _may_pass(error: BaseException) -> bool:
    status = status_of(error)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    return isinstance(cause_of(error), httpx2.TransportError)


class _Retry:
    """Calls a function again, after longer and longer waits, as long as its errors may pass by themselves."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience

    def __call__(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        def attempt() -> T:
            from huggingface_hub import get_session

            get_session().timeout = self.patience.timeout  # without it, huggingface_hub waits for ever
            return call(*args, **kwargs)

        return self.patience.retrying(_may_pass, reason, asked_wait)(attempt)
