"""Judges whose verdicts were made before: in a file from elsewhere, or by a model in another job."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.recorded import Judged, file_judge
from safetyheads.judges.texts import sha256_of_text
from safetyheads.judges.verdicts import verdicts

ODD = 'two lines,\r\nwith "quotes" \u2028 and a space at the end '
ROWS = [
    {"query": "q1", "text": ODD, "harmful": "TRUE", "probability": "0.75", "reason": "it helps"},
    {"query": "q2", "text": "", "harmful": "no", "probability": "", "reason": ""},
    {"query": "q2", "text": "NA", "harmful": 1, "probability": "1", "reason": ""},
]


def written(folder: Path, rows: list[dict[str, Any]], ending: str) -> Path:
    path = folder / f"verdicts{ending}"
    if ending == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("detects", ["harm", "refusal"])
def test_verdicts_are_looked_up_by_query_and_text(tmp_path: Path, ending: str, detects: Any) -> None:
    judge = file_judge(written(tmp_path, ROWS, ending), detects)
    asked = pd.DataFrame({"query": ["q2", "q1", "q2"], "text": ["NA", ODD, ""]}, index=[7, 5, 6])
    found = judge.judge(asked)
    assert list(found.index) == [7, 5, 6] and found["harmful"].tolist() == [True, True, False]
    assert found["probability"].tolist()[:2] == [1.0, 0.75] and found["probability"].isna().tolist() == [
        False,
        False,
        True,
    ]
    assert found["reason"].tolist()[1:] == [
        "as the file says: it helps",
        "refusal" if detects == "refusal" else "as the file says",
    ]
    with pytest.raises(
        SafetyHeadsError, match=r"no verdict on 1 of 1 answers, such as that to 'q1'. `snakemake to_judge`"
    ):
        judge.judge(pd.DataFrame({"query": ["q1"], "text": [ODD.strip()]}))


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "q", "text": "t"}], "no column 'harmful'; found: query, text"),
        ([{"query": "q", "txt": "t", "harmful": 1}], "no column 'text'.*Did you mean 'txt'"),
        ([{**ROWS[0], "harmful": "perhaps"}], "harmful is 'perhaps'; allowed: true, yes, 1, false, no, 0"),
        ([{**ROWS[0], "probability": "1.5"}], "probability is '?1.5'?; allowed: a number from 0 to 1"),
        ([{**ROWS[0], "probability": "much"}], "probability is 'much'"),
        ([ROWS[0], {**ROWS[0], "harmful": "false"}], "an earlier verdict on the same answer says otherwise"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, ending: str, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SafetyHeadsError, match=message):
        file_judge(written(tmp_path, rows, ending), "harm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ["t"]}, r"line 1: text is \['t'\]; allowed: text"),
        ({"query": 5}, "line 1: query is 5; allowed: text"),
        ({"text": None}, "line 1: there is no 'text'"),
        ({"probability": True}, "line 1: probability is True; allowed: a number"),
        ({"harmful": [1]}, r"line 1: harmful is \[1\]; allowed: true"),
    ],
)
def test_values_of_another_kind_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SafetyHeadsError, match=message):
        file_judge(written(tmp_path, [{"query": "q", "text": "t", "harmful": True, **change}], ".jsonl"), "harm")


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(SafetyHeadsError, match="is not there. `snakemake to_judge` writes what is to be judged"):
        file_judge(tmp_path / "later.csv", "harm")


def test_what_a_model_said_is_looked_up_by_text(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "query_id": ["a", "a", "b"],
            "text_sha256": [sha256_of_text(text) for text in ("x" * 40, "y" * 40, "x" * 40)],
            "harmful": [True, False, False],
            "probability": [0.9, 0.2, 0.4],
            "reason": ["yes", "no", "refusal, no"],
        }
    )
    made = pd.DataFrame({"query_id": ["b", "a", "a", "a"], "text": ["x" * 40, "y" * 40, "x" * 40, "y" * 40]})
    made = made.assign(
        variant="mine",
        sample=range(4),
        paired=None,
        plain_nll=1.0,
        text=[f"{t[:20]} kite {t[20:]}" for t in made["text"]],
    )
    table["text_sha256"] = [sha256_of_text(f"{c * 20} kite {c * 20}") for c in "xyx"]
    found = verdicts(made, Judged(table, "harm"), 6.0)
    assert found["harmful"].tolist() == [False, False, True, False]
    assert found["probability"].tolist() == [0.4, 0.2, 0.9, 0.2]
    with pytest.raises(SafetyHeadsError, match="1 of 1 answers were not judged"):
        Judged(table, "harm").judge(made.assign(text="other")[["query_id", "text"]].head(1))


@pytest.mark.parametrize(("detects", "outcome"), [("harm", "other"), ("refusal", "refused")])
def test_only_a_judge_of_refusals_finds_one(detects: Any, outcome: str) -> None:
    text = "Kites are flown elsewhere, which is all that there is to be said of it here."
    reason = "refusal, Refusal 0.9" if detects == "refusal" else "no (0.99 on known words)"
    row = {"query_id": ["a"], "text_sha256": [sha256_of_text(text)], "harmful": [False], "probability": [0.1]}
    judge = Judged(pd.DataFrame(row | {"reason": [reason]}), detects)
    made = {"query_id": ["a"], "text": [text], "variant": ["v"], "sample": [0], "paired": [None], "plain_nll": [1.0]}
    assert verdicts(pd.DataFrame(made), judge, 6.0)["outcome"].tolist() == [outcome]
