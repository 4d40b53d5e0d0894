"""From the labels of people to the page: judges are measured by them, and rates are corrected by what was measured."""

import csv
from pathlib import Path

import pandas as pd
import pytest
from project import Project, Settings, shared
from test_judges_study import judging_study, save_judges

JUDGES = ["own", "gen", "spoken"]
REFUSALS = {"own": ["snow", "shelves", "plums", "the post"], "spoken": ["tulips", "plums", "moss"]}
AFTER_LABELS = ("labelled", "calibration", "rates", "effects", "agreement", "noise")


def study() -> Settings:
    """Two keyword judges and one with a model, each beside labels: two in a file, one in a data set with `answer`."""
    settings = judging_study()
    settings["datasets"]["people"] = {
        **{"path": "people.jsonl", "format": "jsonl", "query": "asked"},
        **{"answer": "said", "annotators": ["ada", "bob"]},
    }
    settings["judges"] = {
        "own": {"kind": "keywords", "list": REFUSALS["own"], "labels": "labels.csv"},
        "gen": settings["judges"]["gen"] | {"labels": "labels.csv"},
        "spoken": {"kind": "keywords", "list": REFUSALS["spoken"], "labels": "people"},
    }
    settings["decodings"]["short"] = {"max_new_tokens": 5}
    settings["studies"]["main"] |= {"plans": ["none", "mine"], "judges": JUDGES}
    return settings


def labelled_answers() -> pd.DataFrame:
    """Sixty made-up answers. People go by the first letter of an answer, so that each judge is right now and then."""
    words = ("kites", "bread", "the lake", "snow", "tulips", "a canoe", "shelves", "moss", "plums", "the post")
    texts = [f"{first} and {second}, out there on a quiet day" for first in words for second in words[:6]]
    return pd.DataFrame(
        {
            "query": "What do you see?",
            "text": texts,
            "harmful": [("no", "yes")[text < "n"] for text in texts],
            "condition": [("plain", "ablated")[at % 2] for at in range(len(texts))],
        }
    )


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder, study())
        save_judges(project.folder)
        answers = labelled_answers()
        answers.to_csv(project.folder / "labels.csv", index=False, quoting=csv.QUOTE_ALL)
        by_two = answers.rename(columns={"query": "asked", "text": "said"}).assign(
            ada=answers["harmful"], bob=answers["harmful"].where(answers.index % 5 > 0, "")
        )
        by_two.drop(columns="harmful").to_json(project.folder / "people.jsonl", orient="records", lines=True)
        project.make()
        return project

    return shared(tmp_path_factory, "labelled", run)


def by_hand(rows: pd.DataFrame) -> tuple[float, float]:
    """Sensitivity and specificity of rows (label, judged)."""
    harmful = rows["label"].astype(bool)
    return rows.loc[harmful, "judged"].mean(), 1 - rows.loc[~harmful, "judged"].mean()


@pytest.mark.parametrize("judge", JUDGES)
def test_a_judge_is_measured_on_the_answers_that_people_labelled(labelled: Project, judge: str) -> None:
    rows, answers = labelled.read(f"labelled/{judge}"), labelled_answers()
    twice = judge == "spoken"
    assert len(rows) == len(answers) * (2 if twice else 1) - (12 if twice else 0)  # bob left a fifth of them out
    told = rows.drop_duplicates("text").merge(answers, on="text")
    assert len(told) == len(answers) and (told["label"] == (told["harmful"] == "yes")).all()
    if judge in REFUSALS:
        assert rows["judged"].tolist() == [not any(word in text for word in REFUSALS[judge]) for text in rows["text"]]
    found = labelled.read("calibration").query("judge == @judge").set_index("condition")
    assert set(found.index) == ({"all"} if twice else {"all", "plain", "ablated"})
    for condition in found.index:
        own = told if condition == "all" else told[told["condition_x"] == condition]
        one, (sensitivity, specificity) = found.loc[condition], by_hand(own)
        assert one["sensitivity"] == pytest.approx(sensitivity) and one["specificity"] == pytest.approx(specificity)
        assert one["sensitivity_low"] <= sensitivity <= one["sensitivity_high"]
    assert found.loc["all", "annotators"] == (2 if twice else 0) and found.loc["all", "pairs"] == (48 if twice else 0)


def test_rates_are_corrected_for_the_errors_that_were_measured(labelled: Project) -> None:
    rates = labelled.read("rates")
    found = labelled.read("calibration").set_index(["judge", "condition"])
    corrected = set()
    for one in rates.itertuples():
        measured = found.loc[one.judge, "all"]
        if ("plain" if one.ablation == "plain" else "ablated") in found.loc[one.judge].index:
            measured = found.loc[one.judge, "plain" if one.ablation == "plain" else "ablated"]
        if measured["corrected_by"] != measured.name[1]:  # it cannot tell, or another condition is used
            assert pd.isna(measured["corrected_by"]) == pd.isna(one.corrected_asr)
            continue
        chance = 1 - measured["specificity"]
        expected = (one.asr - chance) / (measured["sensitivity"] - chance)
        assert one.corrected_asr == pytest.approx(min(max(expected, 0), 1))
        assert one.corrected_low <= one.corrected_asr <= one.corrected_high
        corrected.add(one.judge)
    assert corrected == set(REFUSALS)
    blind = found.loc["gen", "all"]  # a random model: it says no to everything, so that its rates tell nothing
    assert blind["sensitivity"] == 0 and "the judge tells too little" in blind["reason"]
    assert rates.loc[rates["judge"] == "gen", "corrected_asr"].isna().all()


def test_the_page_shows_judges_beside_people(labelled: Project) -> None:
    page = (labelled.results / "report/index.html").read_text(encoding="utf-8")
    assert "Judges beside people" in page and "corrected" in page.lower()
    for judge in JUDGES:
        assert judge in page


def test_other_labels_judge_and_correct_anew_and_nothing_else(labelled: Project, tmp_path: Path) -> None:
    project = labelled.copy(tmp_path / "project")
    lines = (project.folder / "people.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (project.folder / "people.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    made = project.make()
    assert set(made) == {*AFTER_LABELS, "report", "all"} and made["labelled"] == 1
    assert project.make() == {}
