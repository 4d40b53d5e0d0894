"""Mistakes in the files of judges that lie on this machine: each is told before any job, with its key."""

import json
from pathlib import Path
from typing import Any

import pytest

from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError

CLASSIFIER = {
    **{"kind": "classifier", "path": "cls", "detects": "refusal", "classes": ["Refusal", 0]},
    "template": "{query}\n{answer}",
}
GENERATIVE = {"kind": "generative", "path": "gen", "template": "judge.txt", "answers": {"yes": 1, "no": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, config in (("cls", {"id2label": {"0": "Answer", "1": "Refusal"}}), ("gen", {})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    (tmp_path / "judge.txt").write_text("{{about}} {behavior}: {generation}", encoding="utf-8")
    (tmp_path / "labels.csv").write_text("query,text,label,annotator\na,b,refused,me\n", encoding="utf-8")
    return tmp_path


def load(folder: Path, judge: dict[str, Any]) -> None:
    study = {
        **{"models": ["demo"], "datasets": ["demo_harmful"], "templates": ["simple"], "ablations": ["scaling"]},
        **{"plans": ["none"], "decodings": ["greedy"], "judges": ["own"]},
    }
    load_config({"models": {"demo": {"demo": True}}, "judges": {"own": judge}, "studies": {"main": study}}, folder)


@pytest.mark.parametrize(
    "judge",
    [
        CLASSIFIER,
        CLASSIFIER | {"template": "{answer}"},
        GENERATIVE,
        GENERATIVE | {"template": "chat"},
        GENERATIVE | {"labels": "labels.csv"},
        {"kind": "file", "path": "not-yet.csv"},
    ],
)
def test_files_that_are_right_are_taken(judge: dict[str, Any], folder: Path) -> None:
    load(folder, judge)


@pytest.mark.parametrize(
    ("judge", "words"),
    [
        (CLASSIFIER | {"classes": ["refusal"]}, ["judges.own.classes", "Answer (0), Refusal (1)", "'Refusal'?"]),
        (CLASSIFIER | {"classes": [2]}, ["judges.own.classes: found 2", "Answer (0), Refusal (1)"]),
        (CLASSIFIER | {"template": "{answer} {answer}"}, ["judges.own.template", "2 places for the answer"]),
        (CLASSIFIER | {"template": "{answer} {text}"}, ["judges.own.template", "a place {text}"]),
        (GENERATIVE | {"answers": {"yes": 1, "no": 2}}, ["judges.own.answers.no", "a number of at most 1"]),
        (
            {key: value for key, value in CLASSIFIER.items() if key != "template"},
            ["found no template; allowed: one, which kind: classifier needs"],
        ),
    ],
)
def test_a_mistake_is_told_with_its_key(judge: dict[str, Any], words: list[str], folder: Path) -> None:
    with pytest.raises(SafetyHeadsError) as caught:
        load(folder, judge)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("About {behavior}.", ["found 'judge.txt', but it has 0 places for the answer", "{answer} or {generation}"]),
        ("{behavior} {query} {answer}", ["it has 2 places for the query"]),
        ("{answer} {", ["'judge.txt', but The judge's template has a brace that is not doubled"]),
    ],
)
def test_a_template_file_without_its_places_is_told(text: str, words: list[str], folder: Path) -> None:
    (folder / "judge.txt").write_text(text, encoding="utf-8")
    with pytest.raises(SafetyHeadsError) as caught:
        load(folder, GENERATIVE)
    for word in ("judges.own.template", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("query,answer,label", ["the columns 'query', 'answer', 'label'", "allowed: query, text, harmful (or label)"]),
        ("query,text,harmfull", ["the columns 'query', 'text', 'harmfull'"]),
        ("", ["the columns nothing"]),
    ],
)
def test_labels_without_a_column_are_told(head: str, words: list[str], folder: Path) -> None:
    (folder / "labels.csv").write_text(f"{head}\n", encoding="utf-8")
    with pytest.raises(SafetyHeadsError) as caught:
        load(folder, {"kind": "keywords", "list": ["no"], "labels": "labels.csv"})
    for word in ("judges.own.labels: found 'labels.csv'", *words):
        assert word in str(caught.value)
