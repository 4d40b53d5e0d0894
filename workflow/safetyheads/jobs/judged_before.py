"""What a judge's model has said before: answers that were judged by the same judge and code are not judged again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import provenance
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError

COLUMNS = ["query_id", "text_sha256", "harmful", "probability", "reason"]
MADE_WITH = ("versions", "attention", "kernels", "device")
"""What of a record tells how the model was run."""


def determining(record: Mapping[str, Any], description: Mapping[str, Any], settings: Config) -> dict[str, Any]:
    """What decides a verdict: the code, the judge's settings and files, its number format and attention.

    `record` is that of the job, `description` the content of `judges/NAME.json`. Versions of libraries and the kind
    of device are told in the file, but an answer is not judged again for them.
    """
    own = {key: record.get(key) for key in ("code", "config", "dtype", "attention")}
    judge_files = {key: description[key] for key in ("template_sha256", "adapter")}
    return {**own, **judge_files, "files": description["model"]["files"], "threads": settings.compute.threads}


def before(output: Path, determined: Mapping[str, Any]) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The rows of the old file of verdicts that still hold, and the ways in which its rows were made.

    They hold if the file's record says that the same things decided them; else all is judged anew, and there are none.
    """
    try:
        record = provenance(output)
        if record.get("determined") != dict(determined):
            raise LookupError
        return files.read(output, COLUMNS), record["made_with"]
    except (OSError, ValueError, LookupError, TypeError, SafetyHeadsError):  # no such file, an older or a damaged one
        empty = pd.DataFrame(columns=COLUMNS)
        return empty.astype({"query_id": "str", "text_sha256": "str", "reason": "str"}), []


def made_with(record: Mapping[str, Any], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All ways in which the rows of a file were made, each once, this job's last."""
    now = {key: record.get(key) for key in MADE_WITH}
    return [*(one for one in earlier if one != now), now]
