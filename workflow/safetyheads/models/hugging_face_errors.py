"""Errors of Hugging Face in words that say what to do.

The original messages are never shown, because the addresses in them can hold a token.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import httpx2

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.download import BUSY


@dataclass(frozen=True)
class Wanted:
    """What is asked of Hugging Face: a repository, or one file of it. The properties are words for messages."""

    kind: Literal["model", "dataset"]
    repo: str
    revision: str | None
    file: str | None = None

    @property
    def name(self) -> str:
        """`model owner/name` or `data set owner/name`."""
        return f"{'model' if self.kind == 'model' else 'data set'} {self.repo}"

    @property
    def at(self) -> str:
        """The name with the revision."""
        return f"{self.name} at revision {self.revision or 'main'}"

    @property
    def page(self) -> str:
        """The address of the repository's page."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"

    @property
    def by_hand(self) -> str:
        """Advice for a machine without a network."""
        return (
            f"fetch it on another machine (`hf download {self.repo} --repo-type {self.kind}`) and name it with `path:`"
        )


@contextmanager
def hub_errors(wanted: Wanted) -> Iterator[None]:
    """Turn the errors of huggingface_hub within the block into SafetyHeadsErrors, without the original traceback.

    Most of what goes wrong within hf_xet is a RuntimeError; the rest are OSErrors of its own.
    """
    from huggingface_hub import errors

    try:
        yield
    except (
        OSError,
        httpx2.HTTPError,
        errors.HFValidationError,
        errors.RevisionResolutionError,
        RuntimeError,
    ) as error:
        problem = explain(error, wanted)
    else:
        return
    raise SafetyHeadsError(problem) from None


def cause_of(error: BaseException) -> BaseException:
    """The error behind an error.

    If the network fails, huggingface_hub says that a file or a revision is not in its cache; what went wrong is the
    cause of that.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionResolutionError

    absent = isinstance(error, LocalEntryNotFoundError | RevisionResolutionError)
    return error.__cause__ if absent and error.__cause__ else error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error comes from; None if there was no answer."""
    response = getattr(cause_of(error), "response", None)
    return None if response is None else int(response.status_code)


def may_pass(error: BaseException) -> bool:
    """Whether a call that ended with this error is worth repeating.

    If huggingface_hub gave up and looked into its cache (LocalEntryNotFoundError), it has repeated the call itself.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        return False
    status = status_of(error)
    if status is not None:
        return status in BUSY or status >= 500
    return isinstance(cause_of(error), httpx2.TransportError) or _cut_off(error)


def _cut_off(error: BaseException) -> bool:
    """Whether a file came with fewer bytes than the hub told: the one error of this class that has no number."""
    return type(error) is OSError and error.errno is None


def explain(error: BaseException, wanted: Wanted) -> str:
    """A message for the user: what an error of huggingface_hub means, and what to do about it."""
    from huggingface_hub import errors, get_token

    error, status = cause_of(error), status_of(error)
    login = "Your login is not accepted: log in again with" if get_token() else "You are not logged in: do so with"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"The {wanted.at} is not, or not wholly, in the Hugging Face cache, and downloads are switched off: with "
            "HF_HUB_OFFLINE=1, and in every job that computes. Delete its file in results/models or results/datasets, "
            f"if there is one, and run where there is a network, without HF_HUB_OFFLINE=1; or {wanted.by_hand}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"The {wanted.name} has no revision {wanted.revision!r} (HTTP 404). Its revisions are listed at "
            f"{wanted.page}/commits/main."
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return (
            f"The {wanted.at} has no file {wanted.file!r} (HTTP 404). Its files are listed at "
            f"{wanted.page}/tree/{wanted.revision or 'main'}."
        )
    if isinstance(error, errors.GatedRepoError):
        first = "" if get_token() else "log in with `hf auth login` (a token with read access is enough), "
        return (
            f"Access to the {wanted.name} is restricted (HTTP {status}). Accept its licence at {wanted.page}, wait for "
            f"the approval if it needs one, {first}then run again."
        )
    if status == 401:
        return (
            f"Hugging Face wants a login for the {wanted.name}, or there is none of that name (HTTP 401). Check the "
            f"spelling at {wanted.page}. {login} `hf auth login`, or set HF_TOKEN."
        )
    if status == 403:
        return (
            f"Your Hugging Face token may not read the {wanted.name} (HTTP 403). If its page, {wanted.page}, asks for "
            "the acceptance of a licence, accept it; else make a token that may read it, and `hf auth login` again."
        )
    if status == 404:
        return (
            f"Hugging Face has no {wanted.name}, or not for you (HTTP 404). Check the spelling at {wanted.page}; if it "
            "is private, log in with `hf auth login`."
        )
    if status == 429:
        wait = asked_wait(error)
        later = f"It asks to wait {wait:g} seconds." if wait else "Wait some minutes."
        return (
            f"Hugging Face got too many requests from you, also after a while, and refuses the {wanted.at} (HTTP 429). "
            f"{later} Then run again: files that are whole are kept. One may ask more often after `hf auth login`."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{wanted.repo!r} is not the name of a repository. Write owner/name, as in the address of its page."
    if isinstance(error, RuntimeError) or type(error).__module__.startswith("hf_xet"):
        return (
            f"The {wanted.at} cannot be fetched from Xet, the storage of Hugging Face. Check whether the network or "
            "the proxy lets this machine reach hosts of xethub.hf.co, or set HF_HUB_DISABLE_XET=1, and run again "
            f"(files that are whole are kept); or {wanted.by_hand}."
        )
    if isinstance(error, httpx2.HTTPError) or _cut_off(error):
        return (
            f"Hugging Face cannot be reached for the {wanted.at}: {reason(error)}. Check the network and the proxy and "
            f"run again (files that are whole are kept), or {wanted.by_hand}."
        )
    if isinstance(error, errors.FileMetadataError):
        return (
            f"{endpoint()} does not answer as Hugging Face does when it is asked for the {wanted.at}. Check "
            "HF_ENDPOINT and the proxy."
        )
    detail = getattr(error, "strerror", None) or type(error).__name__
    return (
        f"The {wanted.at} cannot be stored in the Hugging Face cache: {detail}. Free some space, or set HF_HOME to a "
        "folder with enough of it."
    )


def asked_wait(error: BaseException) -> float | None:
    """The seconds that the server asks to wait before the next attempt; None if it does not ask."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    response = getattr(cause_of(error), "response", None)
    if response is None:
        return None
    asked = response.headers.get("Retry-After", "")
    if asked.isascii() and asked.isdigit():
        return float(asked)
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def reason(error: BaseException) -> str:
    """Why there was no useful answer, in a few words. Of addresses, only the server's name is shown."""
    error = cause_of(error)
    status = status_of(error)
    if status is not None:
        return f"{endpoint()} answers with HTTP {status}"
    if _cut_off(error):
        return f"a file of {endpoint()} came with fewer bytes than it has there"
    if isinstance(error, httpx2.TimeoutException):
        return f"{endpoint()} does not answer in time"
    said = str(error)  # searched, never shown: httpx2 keeps of the system's error nothing but its text
    if os.strerror(errno.ECONNREFUSED) in said:
        return f"{endpoint()} refuses the connection"
    if any(text in said for text in _UNKNOWN_NAME):
        return f"the name of {endpoint()} is not known here (DNS)"
    if "CERTIFICATE" in said.upper():
        return f"the certificate of {endpoint()} is not accepted (TLS)"
    return f"{type(error).__name__} with {endpoint()}"


def endpoint() -> str:
    """The name of the server that is asked, from HF_ENDPOINT if that is set; without credentials in that address."""
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


_UNKNOWN_NAME = ("Name or service not known", "name resolution", "nodename nor servname", "getaddrinfo", "No address")
"""Parts of the messages by which operating systems say that they cannot look a name up."""
