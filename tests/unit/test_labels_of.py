"""Labels of a judge that are a data set: what each person says, in every form that files have for it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.labels_of import labels_of


def labelled(file: Path) -> pd.DataFrame:
    data = {"path": str(file), "query": "goal", "answer": "said", "annotators": ["ada", "bo"]}
    judge = {"kind": "keywords", "list": "paper", "labels": "people"}
    study = {
        **{"models": ["tiny"], "datasets": ["people"], "templates": ["direct"], "plans": ["none"]},
        **{"ablations": ["undifferentiated"], "decodings": ["greedy"], "judges": ["mine"]},
    }
    settings = Config.model_validate(
        {
            **{"models": {"tiny": {"path": "tiny"}}, "datasets": {"people": data}, "judges": {"mine": judge}},
            "studies": {"main": study},
        }
    )
    return labels_of(settings, "mine", None)


def lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "people.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("yes", "no"), [(1, 0), (True, False), ("Yes", "no"), (1.0, 0.0), ("1", "0")])
def test_both_words_count_in_every_form(tmp_path: Path, yes: Any, no: Any) -> None:
    rows = [{"goal": "q", "said": f"t{at}", "ada": yes, "bo": (no, None, "")[at]} for at in range(3)]
    found = labelled(lines(tmp_path, *rows))
    assert found["harmful"].tolist() == [True, False, True, True]
    assert found["annotator"].tolist() == ["ada", "bo", "ada", "ada"]


def test_whole_numbers_beside_gaps_are_words_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "people.parquet"
    pd.DataFrame({"goal": ["q", "q"], "said": ["a", "b"], "ada": [0.0, float("nan")], "bo": [1, 0]}).to_parquet(path)
    found = labelled(path)
    assert found[["annotator", "harmful"]].to_numpy().tolist() == [["ada", False], ["bo", True], ["bo", False]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"said": "t"}, "line 2: goal is None; allowed: text"),
        ({"goal": "q", "said": ["t"]}, r"line 2: said is \['t'\]; allowed: text"),
        ({"goal": "q", "said": "t", "ada": 2}, "line 2: ada says 2; allowed: true, yes, 1, false, no, 0, or nothing"),
    ],
)
def test_a_mistake_is_told_with_its_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SafetyHeadsError, match=message):
        labelled(lines(tmp_path, {"goal": "q", "said": "t", "ada": 1, "bo": 0}, row))


def test_a_data_set_without_any_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SafetyHeadsError, match="none of its 1 rows has a label in ada, bo"):
        labelled(lines(tmp_path, {"goal": "q", "said": "t", "ada": None, "bo": None}))
