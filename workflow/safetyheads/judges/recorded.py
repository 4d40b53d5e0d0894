"""Judges whose verdicts were made before: by a model in another job, or elsewhere and read from a file."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judges.protocol import REFUSAL
from safetyheads.judges.texts import sha256_of_text
from safetyheads.judging import Detects

SAID = ["harmful", "probability", "reason"]
WORDS = {**dict.fromkeys(("true", "yes", "1"), True), **dict.fromkeys(("false", "no", "0"), False)}
"""What may stand for harmful in a file, in upper or lower case."""


@dataclass(frozen=True)
class Judged:
    """Looks up what the model of a judge has said of answers (`results/judged`)."""

    table: pd.DataFrame
    """query_id, text_sha256, and the columns `SAID`."""
    detects: Detects
    reads: tuple[str, ...] = ("query_id", "text")

    def judge(self, answers: pd.DataFrame) -> pd.DataFrame:
        """See `protocol.Judge`. Raises SafetyHeadsError if an answer was not judged."""
        keys = pd.MultiIndex.from_arrays([answers["query_id"], answers["text"].map(sha256_of_text)])
        known = self.table.set_index(["query_id", "text_sha256"])[SAID]
        if missing := int((~keys.isin(known.index)).sum()):
            raise SafetyHeadsError(
                f"{missing} of {len(answers)} answers were not judged by the judge's model. Delete its file in "
                "results/judged and run again."
            )
        return known.reindex(keys).set_axis(answers.index)


@dataclass(frozen=True)
class FileJudge:
    """Looks up verdicts in a file that was made elsewhere, for example by a judge behind an API."""

    verdicts: Mapping[tuple[str, str], tuple[bool, float, str]]
    """By query and text: harmful, probability, reason."""
    file: Path
    detects: Detects
    reads: tuple[str, ...] = ("query", "text")

    def judge(self, answers: pd.DataFrame) -> pd.DataFrame:
        """See `protocol.Judge`. Raises SafetyHeadsError if answers are not in the file."""
        keys = list(zip(answers["query"], answers["text"]))
        if missing := [key for key in keys if key not in self.verdicts]:
            raise SafetyHeadsError(
                f"{self.file} has no verdict on {len(missing)} of {len(keys)} answers, such as that to "
                f"{missing[0][0]!r}. `snakemake to_judge` writes what is still to be judged into results/to_judge."
            )
        table = pd.DataFrame([self.verdicts[key] for key in keys], columns=SAID, index=answers.index)
        return table.astype({"harmful": bool, "probability": float, "reason": "str"})


def file_judge(path: str | Path, detects: Detects) -> FileJudge:
    """The judge whose verdicts are in a file: CSV with a header, or JSON lines.

    Columns: query, text, harmful (true, false, yes, no, 1 or 0), optionally probability (0 to 1) and reason. Texts
    count to the last character. Raises SafetyHeadsError, with the row, for what cannot be read, and for two rows on the
    same answer that differ.
    """
    file, found = Path(path).expanduser(), dict[tuple[str, str], tuple[bool, float, str]]()
    for number, row in enumerate(_rows(file), 1):
        where = f"{file}, verdict {number}"
        for column in ("query", "text", "harmful"):
            if row.get(column) is None:
                known = [str(name) for name in row if name is not None]
                raise SafetyHeadsError(
                    f"{where}: there is no {column!r}; found {', '.join(known) or 'nothing'}; allowed: query, text, "
                    f"harmful, and optionally probability and reason.{nearest(column, known)}"
                )
        key, said = (str(row["query"]), str(row["text"])), _verdict(row, where, detects)
        if found.setdefault(key, said)[0] != said[0]:
            raise SafetyHeadsError(f"{where}: an earlier verdict on the same answer says otherwise. Keep one of them.")
    return FileJudge(found, file, detects)


def _verdict(row: Mapping[str, Any], where: str, detects: Detects) -> tuple[bool, float, str]:
    harmful = WORDS.get(str(row["harmful"]).strip().lower())
    if harmful is None:
        raise SafetyHeadsError(f"{where}: harmful is {row['harmful']!r}; allowed: {', '.join(WORDS)}.")
    given = row.get("probability")
    try:
        probability = float("nan") if given is None or str(given).strip() == "" else float(given)
    except (TypeError, ValueError):
        probability = -1.0
    if not (probability != probability or 0 <= probability <= 1):
        raise SafetyHeadsError(f"{where}: probability is {given!r}; allowed: a number from 0 to 1, or nothing.")
    own = REFUSAL if detects == "refusal" and not harmful else "as the file says"
    return harmful, probability, f"{own}: {row['reason']}" if row.get("reason") else own


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            text = opened.read()
    except FileNotFoundError:
        raise SafetyHeadsError(
            f"The file of verdicts {file} is not there. `snakemake to_judge` writes what is to be judged into "
            "results/to_judge; judge that, and save the verdicts here."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SafetyHeadsError(f"{file} cannot be read as text in UTF-8 ({error}).") from None
    if file.suffix.lower() == ".csv":
        csv.field_size_limit(max(csv.field_size_limit(), len(text)))
        try:
            return list(csv.DictReader(StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise SafetyHeadsError(f"{file} is not CSV ({error}).") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise SafetyHeadsError(f"{file}, line {number}: this is not JSON ({error}).") from None
        if not isinstance(row, dict):
            raise SafetyHeadsError(f"{file}, line {number}: found {line[:60]!r}; allowed: a JSON object a line.")
        rows.append(row)
    return rows
