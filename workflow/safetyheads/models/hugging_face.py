"""Fetch models and files from Hugging Face into its normal cache, whole and with the right checksum.

The small files of a model come first, so that a model that cannot be measured is refused before its weights are
fetched. Files of weights are fetched by this module itself: huggingface_hub begins an interrupted download again from
the start, while this one goes on where it ended, even after kill -9.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from tqdm import tqdm

from safetyheads.artifacts import files
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import PATIENCE, Patience, sha256_of, verify
from safetyheads.models.files import INDEX, weight_names
from safetyheads.models.hugging_face_errors import Wanted, asked_wait, cause_of, hub_errors, reason, status_of

T = TypeVar("T")
log = logging.getLogger(__name__)

SMALL = (".json", ".jinja", ".model")
"""Endings of the files that are fetched besides the weights. Pickled weights (.bin, .pt) and code (.py) never are."""
VOCABULARIES = ("merges.txt", "vocab.txt")
FIRST = ["config.json", INDEX]
"""Fetched before all others: they say whether the model can be measured, and which files hold its weights."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def snapshot(
    repo: str,
    revision: str | None,
    inspect: Callable[[Path], Any],
    *,
    patience: Patience = PATIENCE,
) -> Path:
    """The folder of a model in the cache, at `revision` (a branch, tag or commit; None is `main`).

    Files that are missing there are fetched. Before the weights are, `inspect(folder)` is called, which can read
    config.json and raise an error for a model that is not wanted. `patience` says how often requests are tried. The
    network is not used if HF_HUB_OFFLINE=1, or if `revision` is a commit and all files are in the cache. Raises
    SafetyHeadsError if the model cannot be fetched, lacks files, does not fit on the disk or has a wrong checksum.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(Wanted("model", repo, revision)):
        retry = _Retry(patience)
        commit = _commit(repo, revision or "main", retry)
        folder = Path(retry(snapshot_download, repo, revision=commit, allow_patterns=FIRST))
        sizes = _listing(repo, folder)
        where = f"The repository {repo} (commit {folder.name[:12]})"
        if "config.json" not in sizes:
            raise SafetyHeadsError(f"{where} has no config.json: it does not hold a model of transformers.")
        weights = [name for name in weight_names(where, sizes, folder / INDEX) if name != INDEX]
        inspect(folder)
        missing = [name for name in weights if not (folder / name).exists()]
        _check_space(folder, sum(sizes[name] or 0 for name in missing))
        for name in missing:
            _fetch(repo, name, folder, retry)
        small = [name for name in sizes if name.endswith(SMALL) or name in VOCABULARIES]
        return Path(retry(snapshot_download, repo, revision=folder.name, allow_patterns=[*small, *weights]))


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


def _fetch(repo: str, name: str, folder: Path, retry: "_Retry") -> None:
    """Put a file of a snapshot's repository into the cache, continuing a download that was interrupted before.

    What has come so far is in a file `*.incomplete`, from which the finished one is made by renaming. If the checksum
    of a continued file is wrong, the part from before may have been damaged, so the file is fetched once more as a
    whole. If a file that came whole has a wrong checksum, SafetyHeadsError is raised. A lock keeps other processes from
    fetching the same file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    url = hf_hub_url(repo, name, revision=folder.name)
    metadata = retry(get_hf_file_metadata, url)
    if metadata.etag is None:
        raise httpx2.HTTPError("no ETag")
    storage = folder.parents[1]
    blob = storage / "blobs" / metadata.etag
    partial = blob.with_name(f"{metadata.etag}.incomplete")
    lock = storage.parent / ".locks" / storage.name / f"{metadata.etag}.lock"
    for place in (blob.parent, lock.parent):
        place.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        while not blob.exists():
            resumed = partial.exists()
            retry.while_it_grows(partial, _append, url, partial, metadata.size, retry.patience.timeout, name)
            found = sha256_of(partial) if _SHA256.fullmatch(metadata.etag) else metadata.etag
            if found == metadata.etag:
                partial.replace(blob)
                return
            partial.unlink()
            if not resumed:
                raise SafetyHeadsError(
                    f"Wrong checksum for {name} of {repo} (commit {folder.name[:12]}): expected sha256 "
                    f"{metadata.etag}, found {found}. The file changed on its way here; nothing of it was "
                    "kept. Run again; if it comes out the same, ask those who run the network's proxy or mirror."
                )
            log.warning("%s was damaged where its download was interrupted; it is fetched again as a whole.", name)


def _append(url: str, path: Path, size: int | None, timeout: float, name: str) -> None:
    """Fetch the bytes that are missing at the end of the file `path`, and write each as it comes.

    `size` is the whole file's in bytes, if known; `timeout` is in seconds; `name` is shown beside the progress bar. A
    server that does not support ranges sends the whole file, which then replaces what was there.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    there = path.stat().st_size if path.exists() else 0
    if size is not None and there > size:
        path.unlink()
        there = 0
    if there and there == size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
        log.info("%s: going on after the first %d bytes.", name, there)
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
        hf_raise_for_status(response)
        whole = response.status_code != 206
        with (
            path.open("wb" if whole else "ab", buffering=0) as file,
            tqdm(desc=name, total=size, initial=0 if whole else there, unit="B", unit_scale=True) as bar,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                bar.update(len(chunk))
    if size is not None and path.stat().st_size != size:
        raise httpx2.ReadError(f"{path.stat().st_size} bytes of {size}")


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

    def while_it_grows(self, file: Path, call: Callable[..., None], *args: Any) -> None:
        """Call again as above, but start counting attempts anew whenever `file` has grown.

        A download of hours over a poor network may fail many times. It is given up only if all attempts in a row bring
        no further byte.
        """
        while True:
            before = file.stat().st_size if file.exists() else 0
            try:
                return self(call, *args)
            except httpx2.HTTPError as error:
                after = file.stat().st_size if file.exists() else 0
                if after <= before or not _may_pass(error):
                    raise
