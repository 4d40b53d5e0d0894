"""Find a model's files: in a folder of the user's, or in the Hugging Face cache, which is filled if that is allowed."""

from pathlib import Path

from safetyheads.errors import SafetyHeadsError
from safetyheads.models import hugging_face


def locate(
    *, path: str | None, repo: str | None, revision: str | None, inspect: hugging_face.Inspect | None = None
) -> Path:
    """The folder of a model: `path` if it is given, else the Hugging Face cache's snapshot of `repo` at `revision`.

    The network is used only with `inspect`, for files that the cache lacks (see `hugging_face.snapshot`). Raises
    SafetyHeadsError if there is
    no such folder, or if the repository is not in the cache and cannot be fetched.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            found = "is a file, not the folder of a model" if folder.exists() else "does not exist"
            raise SafetyHeadsError(
                f"The model folder {path} {found}. A relative path starts at {Path.cwd()}, where Snakemake runs."
            )
        return folder
    if repo is None:
        raise SafetyHeadsError("A model needs `path:` (a folder) or `repo:` (a name on Hugging Face).")
    return hugging_face.snapshot(repo, revision, inspect) if inspect else hugging_face.cached(repo, revision)
