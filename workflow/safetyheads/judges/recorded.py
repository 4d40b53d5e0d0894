"""Judges whose verdicts were made before: by a model in another job, or elsewhere and read from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from safetyheads.data_files import format_of, read_rows
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judges.protocol import REFUSAL
from safetyheads.judges.texts import sha256_of_text
from safetyheads.judging import Detects

NEEDED = ("query", "text", "harmful")
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
    needs_model: ClassVar[bool] = False

    def judge(self, answers: pd.DataFrame) -> pd.DataFrame:
        """See `protocol.Judge`. Raises SafetyHeadsError if an answer was not judged."""
        keys = pd.MultiIndex.from_arrays([answers["query_id"], answers["text"].map(sha256_of_text)])
        known = self.table.set_index(["query_id", "text_sha256"])[SAID]
        if missing := int((~keys.isin(known.index)).sum()):
            raise SafetyHeadsError(
                f"{missing} of {len(answers)} answers were not judged by the judge's model. It judges the plans and "
                "decodings of the studies: add these to one that has the judge. If they are in one, delete the judge's "
                "file in results/judged and run again."
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
    needs_model: ClassVar[bool] = False

    def judge(self, answers: pd.DataFrame) -> pd.DataFrame:
        """See `protocol.Judge`. Raises SafetyHeadsError if answers are not in the file."""
        keys = list(zip(answers["query"], answers["text"]))
        if missing := [key for key in keys if key not in self.verdicts]:
            raise SafetyHeadsError(
                f"{self.file} has no verdict on {len(missing)} of {len(keys)} answers, such as that to "
                f"{missing[0][0]!r}. `snakemake to_judge` writes what is still to be judged into the folder to_judge "
                "of the results."
            )
        table = pd.DataFrame([self.verdicts[key] for key in keys], columns=SAID, index=answers.index)
        return table.astype({"harmful": bool, "probability": float, "reason": "str"})


def file_judge(path: str | Path, detects: Detects) -> FileJudge:
    """The judge whose verdicts are in a file: CSV with a header, JSON lines, or another format of data sets.

    Columns: query, text, harmful (true, false, yes, no, 1 or 0), optionally probability (0 to 1) and reason. Texts
    count to the last character. Raises SafetyHeadsError, with the line, for what cannot be read, and for two rows on
    the same answer that differ.
    """
    file, found = Path(path).expanduser(), dict[tuple[str, str], tuple[bool, float, str]]()
    if not file.is_file():
        raise SafetyHeadsError(
            f"The file of verdicts {file} is not there. `snakemake to_judge` writes what is to be judged into "
            "the folder to_judge of the results; judge that, and save the verdicts here."
        )
    read = read_rows(file, format_of(file.name) or "jsonl", [*NEEDED, "probability", "reason"])
    if missing := [name for name in NEEDED if name not in read.columns]:
        raise SafetyHeadsError(
            f"{file} has no column {missing[0]!r}; found: {', '.join(read.columns)}; allowed: {', '.join(NEEDED)}, and "
            f"optionally probability and reason.{nearest(missing[0], read.columns)}"
        )
    for row in read.rows:
        where = f"{file}, {read.unit} {row.number}"
        if gone := [name for name in NEEDED if row.values.get(name) is None]:
            raise SafetyHeadsError(f"{where}: there is no {gone[0]!r}; allowed: {', '.join(NEEDED)} in every row.")
        if wrong := [name for name in NEEDED[:2] if not isinstance(row.values[name], str)]:
            raise SafetyHeadsError(f"{where}: {wrong[0]} is {row.values[wrong[0]]!r}; allowed: text.")
        key, said = (row.values["query"], row.values["text"]), _verdict(row.values, where, detects)
        if found.setdefault(key, said)[0] != said[0]:
            raise SafetyHeadsError(f"{where}: an earlier verdict on the same answer says otherwise. Keep one of them.")
    return FileJudge(found, file, detects)


def _verdict(row: Mapping[str, Any], where: str, detects: Detects) -> tuple[bool, float, str]:
    harmful = WORDS.get(str(row["harmful"]).strip().lower())
    if harmful is None:
        raise SafetyHeadsError(f"{where}: harmful is {row['harmful']!r}; allowed: {', '.join(WORDS)}.")
    given = row.get("probability")
    try:
        probability = nan if given is None or str(given).strip() == "" else float(str(given))
    except ValueError:
        probability = -1.0
    if not (isnan(probability) or 0 <= probability <= 1):
        raise SafetyHeadsError(f"{where}: probability is {given!r}; allowed: a number from 0 to 1, or nothing.")
    own = REFUSAL if detects == "refusal" and not harmful else "as the file says"
    return harmful, probability, f"{own}: {row['reason']}" if row.get("reason") else own
