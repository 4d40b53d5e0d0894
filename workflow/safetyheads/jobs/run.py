"""The frame that every script runs in: messages go to the job's log, and an error ends with a message for a person."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from safetyheads.errors import SafetyHeadsError

CONFIGURATION = "SAFETYHEADS_CONFIGURATION"
"""The environment variable in which a run hands its options --configfile and --config to its jobs.

Snakemake hands them on as well, but through a shell that changes some words of --config.
"""


@contextmanager
def logged(log: str, *, online: bool = False) -> Iterator[None]:
    """Write the log messages and warnings of the block to the file `log`. Progress bars stay on the terminal.

    Unless `online` is true, nothing within the block asks the Hugging Face hub (as with HF_HUB_OFFLINE=1), so that a
    computing job never depends on the network. An error ends the process with status 1. The log then holds the message
    alone of a SafetyHeadsError, advice for running out of memory, and the traceback of any other error.
    """
    logging.basicConfig(handlers=[_handler(log)], level=logging.INFO, force=True)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs addresses, whose signatures are secret
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    try:
        with nullcontext() if online else _offline():
            yield
    except SafetyHeadsError as error:
        logging.error("%s", error)
        sys.exit(1)
    except Exception as error:
        from accelerate.utils.memory import should_reduce_batch_size

        if should_reduce_batch_size(error):
            logging.error(
                "Out of memory: %s\nLower `compute: token_budget`, or set the model's `dtype: bfloat16`.", error
            )
        else:
            logging.exception("An error that should not happen; please report it with this log.")
        sys.exit(1)


def _handler(log: str) -> logging.Handler:
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(_WithoutTokens("%(levelname)s: %(message)s"))
    return handler


class _WithoutTokens(logging.Formatter):
    """Replaces the user's Hugging Face token by `hf_***` in messages and tracebacks, whatever library wrote them."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record, with `hf_***` for the user's token and for all that looks like one."""
        text = super().format(record)
        hub: Any = sys.modules.get("huggingface_hub")  # if it is not loaded, nothing read the token's file
        tokens = [os.environ.get("HF_TOKEN"), os.environ.get("HUGGING_FACE_HUB_TOKEN")]
        if hasattr(hub, "get_token"):  # missing while the package is still being imported
            tokens.append(hub.get_token())
        for token in filter(None, tokens):
            text = text.replace(token, "hf_***")
        return re.sub(r"\bhf_[A-Za-z0-9]{8,}\b", "hf_***", text)


@contextmanager
def _offline() -> Iterator[None]:
    before = os.environ.get("HF_HUB_OFFLINE")
    constants: Any = sys.modules.get("huggingface_hub.constants")  # read the variable when it was imported
    was = None if constants is None else constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if constants is not None:
            constants.HF_HUB_OFFLINE = was
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
