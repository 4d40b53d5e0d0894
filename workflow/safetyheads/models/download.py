"""Download files whole and with the right checksum, or not at all."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import tenacity

from safetyheads.artifacts import files
from safetyheads.errors import SafetyHeadsError

log = logging.getLogger(__name__)

BUSY = {408, 425, 429}
"""HTTP answers that may pass by themselves, besides 5xx."""
_LONGEST_WAIT = 60.0  # seconds


@dataclass(frozen=True)
class Patience:
    """How often a request is tried, and how long the waits in between are, where an error may pass by itself.

    There are `attempts` in all. The wait before the second one is `first_wait` seconds, and each further wait is twice
    as long as the one before. If the server asks for a longer wait, it is respected. No wait is longer than a minute.
    `timeout` is how many seconds may pass without an answer, or without a further byte of it.
    """

    attempts: int = 5
    first_wait: float = 1.0
    timeout: float = 30.0

    def retrying(
        self,
        may_pass: Callable[[BaseException], bool],
        reason: Callable[[BaseException], str],
        asked: Callable[[BaseException], float | None],
    ) -> tenacity.Retrying:
        """An object that calls a function until it succeeds or fails for good; the last error is then raised.

        Of an error, `may_pass` says whether to try again, `reason` describes it for the log, and `asked` says how many
        seconds the server wants to be left alone (None if it does not say).
        """
        backoff = tenacity.wait_exponential(multiplier=self.first_wait, max=_LONGEST_WAIT)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            longer = (asked(error) if error is not None else None) or 0.0
            return max(backoff(state), min(longer, _LONGEST_WAIT))

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0
            if error is not None:
                log.warning("Try %d failed: %s. Next try in %g s.", state.attempt_number, reason(error), seconds)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_pass),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=wait,
            before_sleep=tell,
            reraise=True,
        )


PATIENCE = Patience()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str | None, source: str) -> None:
    """Raise SafetyHeadsError, showing both sums, unless the file has this checksum; None accepts any file.

    `source` is what the message calls the file: its address, or its path.
    """
    if sha256 is None:
        return
    found = sha256_of(path)
    if found != sha256.lower():
        raise SafetyHeadsError(
            f"Wrong checksum for {source}: expected sha256 {sha256.lower()}, found {found}. The file is not the one "
            "that was pinned: check where it comes from, and change `sha256` only if you trust the new file."
        )


def download(
    url: str,
    destination: Path,
    sha256: str | None = None,
    *,
    patience: Patience = PATIENCE,
) -> None:
    """Fetch `url` into the file `destination`, which then holds the whole body; after an error nothing of it is kept.

    `sha256` is the checksum that the body must have; None accepts any. Errors that may pass by themselves are tried
    again, as `patience` says: failed connections, timeouts, bodies that end too early, and HTTP 408, 425, 429 and 5xx.
    Proxies come from the environment. Raises SafetyHeadsError for any other answer of the server, after the last
    attempt, and for a wrong checksum.
    """
    from requests import RequestException

    shown = without_secrets(url)
    retrying = patience.retrying(_may_pass, lambda error: f"{shown}: {_reason(error)}", _asked_wait)

    def write_to(temporary: Path) -> None:
        retrying(_fetch, url, temporary, patience.timeout)
        verify(temporary, sha256, shown)

    try:
        files.replace(destination, write_to)
    except RequestException as error:
        network = "" if error.response is not None else ", the network and the proxy"
        raise SafetyHeadsError(
            f"{shown} cannot be downloaded: {_reason(error)}. Check the address{network}, or fetch the file on another "
            "machine and name it with `path:`."
        ) from None


def without_secrets(text: str) -> str:
    """A text whose addresses can be shown: without user, password and query, which may be a signature."""
    return re.sub(r"(?<=//)[^/?#\s]*@", "", re.sub(r"(//[^\s?#]*[?#])[^\s'\"]+", r"\1...", text))


def _fetch(url: str, path: Path, timeout: float) -> None:
    from pooch import HTTPDownloader

    # A server must not compress what it sends: the checksum is that of the file as it lies there.
    HTTPDownloader(True, 2**16, timeout=timeout, headers={"Accept-Encoding": "identity"})(url, str(path), None)


def _may_pass(error: BaseException) -> bool:
    from requests import exceptions

    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in BUSY or response.status_code >= 500
    return isinstance(error, exceptions.ConnectionError | exceptions.Timeout | exceptions.ChunkedEncodingError)


def _reason(error: BaseException) -> str:
    """Why there was no file, in a few words. Only the innermost error's text is shown: others hold the address."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}".rstrip()
    if isinstance(error, ValueError):  # requests says so of what is no address
        return "this is not an address that begins with http:// or https://"
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _asked_wait(error: BaseException) -> float | None:
    response = getattr(error, "response", None)
    asked = "" if response is None else response.headers.get("Retry-After", "")
    return float(asked) if asked.isascii() and asked.isdigit() else None
