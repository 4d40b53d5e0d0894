"""Find, fetch and check the files of judges that compute with a model: the model, an adapter, the template.

The job `judges` writes a sum of each file into `judges/{name}.json`, and the template's text, so that later jobs need
no network and notice files that were replaced in between.
"""

import logging
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from safetyheads.config.catalogue import catalogue_judge
from safetyheads.config.judges import Judge, Pinned
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.template_files import check_text, entry_of
from safetyheads.judging import CHAT
from safetyheads.models import hugging_face
from safetyheads.models.adapter import FILES, check_adapter
from safetyheads.models.classifier import describe_classifier
from safetyheads.models.describe import check_before_weights, describe, verify
from safetyheads.models.download import download, sha256_of
from safetyheads.models.find import locate

log = logging.getLogger(__name__)


def describe_judge(judge: Judge, name: str) -> dict[str, Any]:
    """The content of `judges/{name}.json`. Files that are missing are fetched.

    `model` describes the model, `adapter` the files of the adapter, if there is one, and `template` is its text, or
    `CHAT`. Raises SafetyHeadsError if anything cannot be had or is not what it should be.
    """
    generative = judge.kind == "generative"
    inspect = check_before_weights if generative else lambda folder, headers: None
    folder = locate(path=judge.path, repo=judge.repo, revision=judge.revision, inspect=partial(inspect))
    if generative:
        source: Literal["path", "repo"] = "path" if judge.path else "repo"
        model = describe(folder, model=name, source=source, repo=judge.repo, revision=judge.revision)
    else:
        model = describe_classifier(folder) | {"repo": judge.repo, "revision": _commit(folder, judge.revision)}
    template = template_of(judge)
    return {
        "judge": name,
        "model": model,
        "adapter": _described_adapter(judge),
        "template": template,
        "template_sha256": sha256(template.encode()).hexdigest(),
    }


def template_of(judge: Judge) -> str:
    """The text of a judge's template, or `CHAT`. A file of its authors is fetched.

    Raises SafetyHeadsError for a file that is missing or not UTF-8, or whose template is not the pinned one.
    """
    given = judge.template or CHAT
    if isinstance(given, Pinned):
        if given.url:
            with TemporaryDirectory(prefix="safetyheads-") as folder:
                download(given.url, Path(folder, "template"))
                text = _read(Path(folder, "template"), given.url)
        else:
            text = _read(hugging_face.hub_file(str(given.repo), given.revision, str(given.file)), f"{given.file}")
        where = given.url or f"{given.file} of {given.repo}"
        template = entry_of(text, where, given.entry)
        check_text(template, given.sha256, where)
        return template
    if judge.template_file is None:
        return given
    text = _read(Path(judge.template_file).expanduser(), given)
    known = catalogue_judge(judge.repo)
    published = known.template if known else None
    if isinstance(published, Pinned) and published.sha256 != sha256(text.encode()).hexdigest():
        log.warning(
            "The template in %s is not the published one of %s, to the last character (a line end or a space at "
            "the end counts, too): this is another judge, and its rates are its own.",
            *(given, judge.repo),
        )
    return text


def judge_folders(judge: Judge, description: Mapping[str, Any], since: float) -> tuple[Path, Path | None]:
    """The folders of a judge's model and of its adapter, if it has one, once their files have been checked.

    `description` is the content of `judges/{name}.json`, `since` when it was written. Raises SafetyHeadsError if a file
    is missing or is not the one that was described.
    """
    model = description["model"]
    folder = locate(path=judge.path, repo=judge.repo, revision=model["revision"] or judge.revision)
    verify(folder, model["files"], since)
    if judge.adapter is None:
        return folder, None
    adapter = _adapter_folder(judge, description["adapter"]["revision"], download=False)
    verify(adapter, description["adapter"]["files"], since)
    return folder, adapter


def _described_adapter(judge: Judge) -> dict[str, Any] | None:
    if judge.adapter is None:
        return None
    folder = _adapter_folder(judge, judge.adapter.revision, download=True)
    check_adapter(folder)
    revision = _commit(folder, judge.adapter.revision)
    return {"revision": revision, "files": {name: sha256_of(folder / name) for name in FILES}}


def _adapter_folder(judge: Judge, revision: str | None, *, download: bool) -> Path:
    adapter = judge.adapter
    assert adapter is not None
    if adapter.path:
        return Path(adapter.path).expanduser()
    get = hugging_face.hub_file if download else hugging_face.cached_file
    return [get(str(adapter.repo), revision, name) for name in FILES][0].parent  # noqa: RUF015 - all are fetched


def _commit(folder: Path, revision: str | None) -> str | None:
    """The commit of a snapshot in the Hugging Face cache; for other folders what the configuration says."""
    return folder.name if folder.parent.name == "snapshots" else revision


def _read(path: Path, where: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SafetyHeadsError(
            f"The judge's template {where} is not there. Allowed: text with {{query}} and {{answer}}, `chat`, or the "
            "path of a text file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SafetyHeadsError(f"The judge's template {where} cannot be read as text in UTF-8 ({error}).") from None
