"""`snakemake --cores 1` in a fresh checkout finds the heads that were planted in the demo model."""

from pathlib import Path

import pytest
from project import Project, shared

pytestmark = pytest.mark.slow

TEMPLATE, ABLATION = "simple", "undifferentiated"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The configuration that comes with the repository, run as a newcomer would."""

    def run(folder: Path) -> Project:
        project = Project.create(folder)
        project.make(configfile=None)
        return project

    return shared(tmp_path_factory, "demo", run)


@pytest.fixture(scope="session")
def planted(demo: Project) -> list[str]:
    """The planted heads, A first, by the model's own description."""
    return demo.describe("demo")["planted"]


def rates(project: Project, dataset: str, plan: str) -> dict[str, float]:
    """ASR by variant."""
    table = project.read("rates").query("dataset == @dataset and plan == @plan")
    assert len(table) > 0
    return dict(zip(table["variant"], table["asr"], strict=True))


def test_the_plain_model_refuses_and_without_both_heads_it_answers(demo: Project) -> None:
    assert rates(demo, "demo_harmful", "none")["none"] <= 0.02
    assert rates(demo, "demo_harmful", "planted")["planted"] >= 0.95


def test_no_other_heads_of_the_same_layers_do_what_the_planted_heads_do(demo: Project) -> None:
    (effect,) = demo.read("effects").query("dataset == 'demo_harmful' and plan == 'planted'").to_dict("records")
    assert effect["ablated"] >= 0.95 and effect["degenerate"] <= 0.02
    assert effect["draws"] == 20 and effect["p_control"] <= 0.05 and effect["over_control_low"] > 0


def test_each_planted_head_carries_half_of_the_refusals_and_no_other_any(demo: Project, planted: list[str]) -> None:
    single = rates(demo, "demo_harmful", "single")
    assert len(single) == 4 * 8
    for head, asr in single.items():
        if head in planted:
            assert asr == pytest.approx(0.5, abs=0.1), head
        else:
            assert asr <= 0.05, head


def test_the_planted_heads_support_refusal_where_they_guard_and_no_other_head_does_anywhere(
    demo: Project, planted: list[str]
) -> None:
    ships = demo.read("ships/demo/demo_harmful/simple/undifferentiated").merge(demo.read("datasets/demo_harmful"))
    ships["name"] = [f"L{layer:02d}H{head:02d}" for layer, head in zip(ships["layer"], ships["head"])]
    guards = dict(zip(planted, ("guarded_a", "guarded_b"), strict=True))
    guarding = ships["name"].map(guards) == ships["category"]
    assert guarding.sum() == 100
    assert (ships[guarding]["refusal_shift"] < -1).all() and (ships[guarding]["answer_shift"] > 1).all()
    assert ships[~guarding][["refusal_shift", "answer_shift"]].abs().max(axis=None) < 2


def test_ships_finds_the_guarding_head_of_each_prompt(demo: Project, planted: list[str]) -> None:
    guarding = dict(zip(("guarded_a", "guarded_b"), planted, strict=True))
    expected = demo.read("datasets/demo_harmful").set_index("query_id")["category"].map(guarding)
    assert expected.value_counts().to_dict() == dict.fromkeys(planted, 50)
    ships = demo.read(f"ships/demo/demo_harmful/{TEMPLATE}/{ABLATION}")
    best = ships.loc[ships.groupby("query_id")["score"].idxmax()].set_index("query_id")
    found = "L" + best["layer"].astype(str).str.zfill(2) + "H" + best["head"].astype(str).str.zfill(2)
    assert (found == expected[found.index]).mean() >= 0.95


def test_the_first_step_of_sahara_ranks_the_planted_heads_first_and_second(demo: Project, planted: list[str]) -> None:
    first = demo.read(f"sahara/demo/demo_attribution/{TEMPLATE}/{ABLATION}").query("step == 1")
    best = first.nlargest(2, "score")
    assert {f"L{layer:02d}H{head:02d}" for layer, head in zip(best["layer"], best["head"])} == set(planted)
    assert first.loc[first["selected"], "score"].item() == first["score"].max()


def test_benign_requests_are_answered_plain_and_ablated(demo: Project) -> None:
    assert rates(demo, "demo_benign", "none")["none"] >= 0.95
    assert rates(demo, "demo_benign", "planted")["planted"] >= 0.95


def test_the_report_is_there_and_shows_no_completion(demo: Project) -> None:
    page = (demo.results / "report/index.html").read_text(encoding="utf-8")
    answers = demo.read(f"completions/demo/demo_harmful/{TEMPLATE}/plain/none/greedy")["text"]
    assert "<svg" in page
    assert not any(answer.strip() in page for answer in answers)


def test_a_second_run_runs_nothing(demo: Project) -> None:
    assert demo.make(configfile=None) == {}
    assert demo.temporary_files() == []
