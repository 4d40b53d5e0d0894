"""What a judge's model has said before: answers that were judged by the same judge and code are not judged again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import provenance
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.texts import sha256_of_text

COLUMNS = ["query_id", "text_sha256", "harmful", "probability", "reason"]
MADE_WITH = ("versions", "attention", "kernels", "device")
"""What of a record tells how the model was run."""


def determining(params: Mapping[str, Any], description: Mapping[str, Any], settings: Config) -> dict[str, Any]:
    """What decides a verdict: the code, the judge's settings and files, and its number format.

    `params` are those of the job, `description` the content of `judges/NAME.json`. Versions of libraries and the kind
    of device are told in the file, but an answer is not judged again for them.
    """
    judge_files = {key: description[key] for key in ("template_sha256", "adapter")}
    own = {key: params[key] for key in ("code", "judge", "dtype")} | {"threads": settings.compute.threads}
    return {**own, **judge_files, "files": description["model"]["files"]}


def before(old: Path, determined: Mapping[str, Any], queries: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of the old file of verdicts that still hold, and the file's record; no rows and no record if none do.

    They hold if the file's record says that the same things decided them, else all is judged anew. Rows on a query that
    has other words now do not hold either: `queries` has the words of each query_id.
    """
    try:
        record = provenance(old)
        if record.get("determined") != dict(determined):
            raise LookupError
        rows, known = files.read(old, COLUMNS), told(queries)
        other = {name for name, digest in record["queries"].items() if known.get(name, digest) != digest}
        return rows[~rows["query_id"].isin(other)], record
    except (OSError, ValueError, LookupError, TypeError, SafetyHeadsError):  # no such file, an older or a damaged one
        empty = pd.DataFrame(columns=COLUMNS)
        return empty.astype({"query_id": "str", "text_sha256": "str", "reason": "str"}), {}


def told(queries: Mapping[str, str]) -> dict[str, str]:
    """A digest of each query's words, by query_id, for the record of a file."""
    return {name: sha256_of_text(query)[:16] for name, query in sorted(queries.items())}


def remembered(
    record: Mapping[str, Any], earlier: Mapping[str, Any], determined: Mapping[str, Any], queries: Mapping[str, str]
) -> dict[str, Any]:
    """What the next job must know of a file: what decided its rows, of which queries they are, and how they were made.

    `record` is that of this job, and `earlier` that of the old file; the ways to make rows are each there once.
    """
    now = {key: record.get(key) for key in MADE_WITH}
    ways = [*(one for one in earlier.get("made_with", ()) if one != now), now]
    return {"determined": dict(determined), "queries": earlier.get("queries", {}) | told(queries), "made_with": ways}
