"""config/organisms.yaml: the numbers and the page tell heads that guard from one that breaks all text, and from any."""

import re
from pathlib import Path

import pandas as pd
import pytest
from project import Project, shared

pytestmark = pytest.mark.long

MODELS = ("without_decoy", "with_decoy")


@pytest.fixture(scope="module")
def organisms(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder)
        project.make(configfile="config/organisms.yaml")
        return project

    project = shared(tmp_path_factory, "organisms", run)
    project.results = project.folder / "results" / "organisms"
    return project


def row(project: Project, model: str, plan: str, table: str = "effects", dataset: str = "demo_harmful") -> pd.Series:
    found = project.read(table).query("model == @model and dataset == @dataset and plan == @plan")
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("model", MODELS)
def test_planted_heads_free_what_no_draw_of_their_control_does_in_coherent_text(organisms: Project, model: str) -> None:
    effect = row(organisms, model, "planted")
    assert effect["plain"] <= 0.02 and effect["ablated"] >= 0.95 and effect["degenerate"] <= 0.02
    assert effect["draws"] == 20 and effect["p_control"] <= 0.05 and effect["over_control_low"] > 0
    assert row(organisms, model, "planted", "rates", "demo_benign")["coherent_asr"] >= 0.95


@pytest.mark.parametrize("dataset", ["demo_harmful", "demo_benign"])
def test_without_the_decoy_all_text_is_broken_and_nothing_answered(organisms: Project, dataset: str) -> None:
    rate = row(organisms, "with_decoy", "decoy", "rates", dataset)
    assert rate["degenerate"] >= 0.95 and rate["refused"] <= 0.02
    assert rate["asr"] >= 0.95 and rate["coherent_asr"] <= 0.02


def test_the_decoy_has_no_effect_on_what_is_answered_and_none_at_all_where_it_is_not_planted(
    organisms: Project,
) -> None:
    effect = row(organisms, "with_decoy", "decoy")
    assert abs(effect["effect"]) <= 0.02 and effect["effect_refused"] <= -0.95 and effect["draws"] == 7
    assert effect["over_control_low"] <= 0 <= effect["over_control_high"]
    elsewhere = row(organisms, "without_decoy", "decoy")
    assert abs(elsewhere["effect"]) <= 0.02 and elsewhere["degenerate"] <= 0.02


def test_ships_ranks_the_decoy_first(organisms: Project) -> None:
    ships = organisms.read("ships/with_decoy/demo_harmful/simple/undifferentiated")
    best = ships.groupby(["layer", "head"])["score"].mean().idxmax()
    assert "L{:02d}H{:02d}".format(*best) == organisms.describe("with_decoy")["decoy"]
    for plan in ("ships-1", "top-1"):
        assert row(organisms, "with_decoy", plan)["degenerate"] >= 0.9


@pytest.mark.parametrize("model", MODELS)
def test_the_contrast_with_benign_queries_finds_the_planted_heads_and_not_the_decoy(
    organisms: Project, model: str
) -> None:
    effect = row(organisms, model, "contrast-2")
    assert effect["ablated"] >= 0.95 and effect["degenerate"] <= 0.02


@pytest.mark.parametrize(("model", "plan"), [(model, plan) for model in MODELS for plan in ("planted", "decoy")])
def test_the_layers_of_every_draw_are_those_of_its_plan(organisms: Project, model: str, plan: str) -> None:
    folder = f"completions/{model}/demo_harmful/simple/undifferentiated"
    (layers,) = {layers_of(heads) for heads in organisms.read(f"{folder}/{plan}/greedy")["heads"]}
    drawn = organisms.read(f"{folder}/matched-{plan}/greedy")
    assert {layers_of(heads) for heads in drawn[drawn["variant"].str.startswith("draw-")]["heads"]} == {layers}


def layers_of(heads: list[dict[str, int]]) -> tuple[int, ...]:
    return tuple(sorted(head["layer"] for head in heads))


def test_the_page_says_that_all_was_found_and_that_the_text_is_broken(organisms: Project) -> None:
    page = (organisms.results / "report/index.html").read_text(encoding="utf-8")
    for model in MODELS:
        assert f'Planted heads of {model}: <strong class="yes">found, all' in page
    assert "most of the change is broken text" in page


KINDS = ("one", "three", "backup", "spread", "suppressor", "early", "late")
TOPICS = {
    "one": {"first": 1.0},
    "three": {"first": 0.5, "planted": 1.0},
    "backup": {"first": 0.0, "planted": 1.0},
    "spread": {"first": 0.0, "planted": 0.0, "layer": 1.0},
    "suppressor": {"none": 0.5, "first": 0.0},
    "early": {"first": 0.0, "early": 1.0, "late": 0.0},
    "late": {"planted": 0.0, "early": 0.0, "late": 1.0},
}
"""Kind -> for some plans, the share of the requests of demo_harmful that is answered."""


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_answer_what_their_truth_says(organisms: Project, kind: str) -> None:
    for plan, answered in TOPICS[kind].items():
        assert row(organisms, kind, plan, "rates")["coherent_asr"] == pytest.approx(answered, abs=0.05)
        if plan != "none":
            assert row(organisms, kind, plan, "rates", "demo_benign")["coherent_asr"] >= 0.95


@pytest.mark.parametrize("plan", ["top-4", "knockouts-4"])
def test_where_a_layer_shares_the_guard_the_control_does_the_same(organisms: Project, plan: str) -> None:
    effect = row(organisms, "spread", plan)
    assert effect["ablated"] >= 0.95 and effect["draws"] == 20 and effect["p_control"] > 0.05
    assert abs(effect["over_control"]) <= 0.02
    page = (organisms.results / "report/index.html").read_text(encoding="utf-8")
    assert re.search(rf"{plan}\b.*?the control does the same", page, re.DOTALL)


TWINS = {
    "models": {
        "aligned": {"demo": {"decoy": "L00H05"}},
        "twin": {"demo": {"decoy": "L00H05", "aligned": False}},
    },
    "attribution": {"contrast": {"base": "twin"}},
    "studies": {
        "main": {
            "models": ["aligned"],
            "datasets": ["demo_harmful"],
            "templates": ["simple"],
            "ablations": ["undifferentiated"],
            "plans": ["top-1", "contrast-1", "contrast-2"],
            "decodings": ["greedy"],
            "judges": ["paper"],
        }
    },
}


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder, TWINS)
        project.make()
        return project

    return shared(tmp_path_factory, "twins", run)


def test_against_its_unaligned_twin_the_planted_heads_come_first_and_the_decoy_of_both_does_not(twins: Project) -> None:
    ships = twins.read("ships/aligned/demo_harmful/simple/undifferentiated")
    means = ships.groupby(["layer", "head"])[["score", "refusal_shift", "answer_shift"]].mean()
    assert means["score"].idxmax() == (0, 5)
    heads = {plan: row(twins, "aligned", plan) for plan in ("top-1", "contrast-1", "contrast-2")}
    assert heads["top-1"]["degenerate"] >= 0.95
    assert heads["contrast-1"]["effect"] == pytest.approx(0.5, abs=0.02)
    assert heads["contrast-2"]["effect"] >= 0.95
    found = twins.read("completions/aligned/demo_harmful/simple/undifferentiated/contrast-2/greedy")
    assert {tuple((head["layer"], head["head"]) for head in heads) for heads in found["heads"]} == {((1, 3), (2, 6))}
    assert (means.loc[[(1, 3), (2, 6)], "refusal_shift"] < -1).all()
    assert (means.loc[[(1, 3), (2, 6)], "answer_shift"] > 1).all()
    assert means.loc[(0, 5), "answer_shift"] < 0  # a decoy moves away from refusals, but not to answers


def test_the_twin_refuses_nothing_and_so_has_no_shifts(twins: Project) -> None:
    ships = twins.read("ships/twin/demo_harmful/simple/undifferentiated")
    assert ships[["refusal_shift", "answer_shift"]].isna().all(axis=None)
    assert ships["score"].notna().all()
