"""Cells: which files the studies of a configuration need, and what heads and files a plan needs."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import Cell, Cells
from safetyheads.jobs.experiment_cells import ExperimentCells
from safetyheads.jobs.judge_cells import JudgeCells
from safetyheads.jobs.planning import hours, rates_to_be_gone
from safetyheads.jobs.sources import PATHS
from safetyheads.methods import SCORES


def settings(**changes: Any) -> dict[str, Any]:
    study = {
        "models": ["llama-2-7b-chat"],
        "datasets": ["advbench", "jailbreakbench"],
        "templates": ["simple"],
        "ablations": ["scaling", "undifferentiated"],
        "plans": ["none", "ships-1", "sahara-2@malicious_instruct", "sahara-2", "random-3", "mine"],
        "decodings": ["greedy"],
        "judges": ["paper", "reference"],
    }
    return {"head_sets": {"mine": ["L01H02"]}, "studies": {"main": study | changes}}


@pytest.fixture
def cells() -> Cells:
    return Cells(load_config(settings()))


def test_all_combinations_are_there_once_and_the_plain_model_once_for_all_ablations(cells: Cells) -> None:
    counts = Counter(cell.plan for cell in cells.all)
    assert counts.pop("none") == 2 * 2
    assert set(counts.values()) == {2 * 2 * 2}
    assert {cell.ablation for cell in cells.all if cell.plan == "none"} == {"plain"}
    assert cells.all == sorted(set(cells.all))


def test_the_plain_model_is_measured_unasked() -> None:
    assert {cell.plan for cell in Cells(load_config(settings(plans=["mine"]))).all} == {"none", "mine"}


def test_scores_are_those_that_plans_need_from_the_data_set_that_they_name(cells: Cells) -> None:
    assert cells.paths("ships", cells.scored("ships")) == [
        f"<results>/ships/llama-2-7b-chat/{dataset}/simple/{ablation}.parquet"
        for dataset in ("advbench", "jailbreakbench")
        for ablation in ("scaling", "undifferentiated")
    ]
    assert {cell.dataset for cell in cells.scored("sahara")} == {"advbench", "jailbreakbench", "malicious_instruct"}
    assert Cells(load_config(settings(plans=["random-3"]))).scored("sahara") == []


def test_an_experiment_of_utility_generates_nothing_and_needs_the_scores_of_its_plans() -> None:
    cells = Cells(load_config(settings(experiment="utility", plans=["none", "sahara-2"], datasets=["advbench"])))
    assert cells.all == []
    place = "<results>/utility/llama-2-7b-chat/advbench/simple"
    paths = [f"{place}/{cell}.parquet" for cell in ("plain/none", "scaling/sahara-2", "undifferentiated/sahara-2")]
    assert sorted(ExperimentCells(cells).inputs("main")["utility"]) == paths
    inputs = cells.utility_inputs("sahara-2", "scaling", "llama-2-7b-chat", "advbench")
    assert "sahara" in inputs["scores"] and "prompts" not in inputs


def test_where_no_rates_are_measured_there_is_no_page_to_make_of_them() -> None:
    cells = Cells(load_config(settings(experiment="overlap", plans=["ships-1"])))
    assert cells.all == [] and cells.measured() == {}
    assert ExperimentCells(cells).paths()["main"][0] == "<results>/experiments/main/table.csv"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": "doses", "plans": ["none", "mine"]}, "no heads that a method chooses"),
        ({"experiment": "maps", "plans": ["none", "mine"]}, "no map of single heads; allowed: single, or each-P"),
        ({"experiment": "utility", "plans": ["none"]}, "utility.folder: found 'nowhere', which is no folder"),
    ],
)
def test_an_experiment_that_would_show_nothing_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SafetyHeadsError, match=words):
        load_config(settings(**changes) | {"utility": {"folder": "nowhere"}})


def test_the_folder_of_tasks_does_not_hold_the_results(tmp_path: Path) -> None:
    values = settings(experiment="utility", plans=["none"]) | {"results": str(tmp_path / "results")}
    with pytest.raises(SafetyHeadsError, match="which holds the results"):
        load_config(values | {"utility": {"folder": str(tmp_path)}})


def test_of_a_folder_of_tasks_what_programs_leave_there_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    for name in ("mild.yaml", "mild.jsonl", "own/utils.py"):
        (tmp_path / name).write_text(name)
    values = settings(experiment="utility", plans=["none"]) | {"utility": {"folder": str(tmp_path)}}
    content = Cells(load_config(values)).task_content()
    assert set(content) == {"lm_eval", "mild.yaml", "mild.jsonl", "own/utils.py"}
    (tmp_path / "own" / "__pycache__").mkdir()
    for name in ("own/__pycache__/utils.cpython-311.pyc", ".DS_Store", "mild.yaml~"):
        (tmp_path / name).write_text("-")
    assert Cells(load_config(values)).task_content() == content
    (tmp_path / "mild.jsonl").write_text("other")
    assert Cells(load_config(values)).task_content() != content


def test_paths_are_those_of_the_contract(cells: Cells) -> None:
    assert cells.paths("rates") == ["<results>/rates.parquet"]
    assert cells.paths("models") == ["<results>/models/llama-2-7b-chat.json"]
    assert len(cells.paths("verdicts")) == len(cells.all)
    assert PATHS["completions"].endswith("/{ablation}/{plan}/{decoding}.parquet")


@pytest.mark.parametrize(
    ("plan", "ablation", "found"),
    [
        ("none", "plain", {}),
        ("ships-1", "scaling", {"chooses": ["prompt", False]}),
        ("mine", "scaling", {"heads": ["L01H02"]}),
        ("random-3", "scaling", {"random": {"draws": 5, "seed": 0}}),
        ("top-2@other", "scaling", {"chooses": ["data set", False]}),
        ("contrast-2", "scaling", {"chooses": ["data set", True]}),
        ("knockouts-2", "scaling", {"chooses": ["data set", False]}),
        ("matched-ships-1", "scaling", {"random": {"matched": 20, "seed": 0}, "chooses": ["prompt", False]}),
        ("matched-mine", "scaling", {"random": {"matched": 20, "seed": 0}, "heads": ["L01H02"]}),
        ("each-mine", "scaling", {"heads": ["L01H02"]}),
        ("each-sahara-2", "scaling", {"chooses": ["group", False]}),
    ],
)
def test_a_plan_depends_on_what_its_heads_follow_from_alone(
    plan: str, ablation: str, found: dict[str, Any], cells: Cells
) -> None:
    assert cells.plan_settings(plan, ablation) == found


@pytest.mark.parametrize(
    ("plan", "ablation", "said"),
    [
        ("none", "scaling", "the plain model is `plain/none`"),
        ("ships-1", "plain", "the plain model is `plain/none`"),
        ("ships-0", "scaling", "'ships-0' is not a plan"),
        ("mien", "scaling", "'mien' is neither a plan nor in head_sets. Did you mean 'mine'?"),
        ("matched-mien", "scaling", "'matched-mien': 'mien' is neither a plan nor in head_sets. Did you mean 'mine'?"),
        ("matched-none", "scaling", "'matched-none' is not a plan: matched-P draws controls"),
    ],
)
def test_a_plan_that_cannot_be_is_explained(plan: str, ablation: str, said: str, cells: Cells) -> None:
    with pytest.raises(SafetyHeadsError, match=said.replace("?", r"\?")):
        cells.plan_settings(plan, ablation)


def test_completions_are_made_from_prompts_and_the_scores_of_their_plan(cells: Cells) -> None:
    assert set(cells.completion_inputs("none", "plain", "m", "d")) == {"model", "prompts"}
    assert cells.completion_inputs("ships-1", "scaling", "m", "d")["scores"] == PATHS["ships"]
    for stage, plan in (
        *[("sahara", name) for name in ("sahara-2@other", "matched-sahara-2@other", "each-sahara-1@other")],
        *[("ships", name) for name in ("top-2@other", "matched-top-2@other", "each-top-2@other")],
        *[("scores/gradient", name) for name in ("gradient-2@other", "matched-gradient-2@other")],
    ):
        inputs = cells.completion_inputs(plan, "scaling", "m", "d")
        assert set(inputs) == {"model", "prompts", "scores"}
        assert inputs["scores"] == f"<results>/{stage}/{{model}}/other/{{template}}/{{ablation}}.parquet"
    assert cells.completion_inputs("matched-ships-1", "scaling", "m", "d")["scores"] == PATHS["ships"]
    assert set(cells.completion_inputs("matched-mine", "scaling", "m", "d")) == {"model", "prompts"}


@pytest.mark.parametrize(
    ("plan", "stage", "scored"),
    [
        ("matched-ships-1", "ships", "jailbreakbench"),
        ("matched-sahara-2@advbench", "sahara", "advbench"),
        ("each-top-2@advbench", "ships", "advbench"),
        ("top-2", "ships", "jailbreakbench"),
        ("each-sahara-1", "sahara", "jailbreakbench"),
        ("matched-mask-2@advbench", "mask", "advbench"),
        ("sahara_centred-1", "sahara_centred", "jailbreakbench"),
    ],
)
def test_controls_and_maps_need_the_scores_of_the_plan_that_they_are_about(plan: str, stage: str, scored: str) -> None:
    cells = Cells(
        load_config(settings(plans=[plan], datasets=["jailbreakbench"]) | {"attribution": {"benign": "alpaca"}})
    )
    assert {cell.dataset for cell in cells.scored(stage)} == {scored}
    assert [scores for scores in SCORES if cells.scored(scores)] == [stage]


PLANS = ["none", "ships-1", "top-2", "sahara-1", "sahara-1@xstest", "random-3", "mine", "single"]
PLANS += ["matched-top-2", "matched-mine", "each-top-2", "each-mine"]


def test_on_a_benign_data_set_plans_are_measured_whose_heads_other_data_sets_chose() -> None:
    cells = Cells(load_config(settings(plans=PLANS, datasets=["advbench", "alpaca", "jailbreakbench"])))
    groups = {f"{plan}@{other}" for plan in ("top-2", "sahara-1") for other in ("advbench", "jailbreakbench")}
    assert {cell.plan for cell in cells.all if cell.dataset == "alpaca"} == (
        {"none", "random-3", "mine", "sahara-1@xstest"} | groups
    )
    assert {cell.plan for cell in cells.all if cell.dataset == "advbench"} == set(PLANS)
    for stage, more in (("ships", set()), ("sahara", {"xstest"})):
        scored = {cell.dataset for cell in cells.scored(stage)}
        assert scored == {"advbench", "jailbreakbench"} | more, "nothing is scored on a benign data set"


def test_what_is_measured_on_a_benign_data_set_is_of_its_own_study() -> None:
    raw = settings(plans=["none", "mine", "top-2", "single"], datasets=["alpaca"])
    raw["studies"]["other"] = raw["studies"]["main"] | {"datasets": ["advbench"], "plans": ["top-2"]}
    cells = Cells(load_config(raw))
    assert {cell.plan for cell in cells.all if cell.dataset == "alpaca"} == {"none", "mine"}
    assert {cell.dataset for cell in cells.scored("ships")} == {"advbench"}


def test_the_number_of_draws_of_one_control_does_not_concern_the_other() -> None:
    def said(random: dict[str, int]) -> list[dict[str, Any]]:
        cells = Cells(load_config(settings() | {"random": random}))
        return [
            cells.plan_settings(plan, "scaling") for plan in ("random-3", "matched-ships-1", "matched-mine", "mine")
        ]

    def changed(random: dict[str, int]) -> list[bool]:
        return [one != other for one, other in zip(said({}), said(random))]

    assert changed({"draws": 9}) == [True, False, False, False]
    assert changed({"matched": 9}) == [False, True, True, False]
    assert changed({"seed": 9}) == [True, True, True, False]


def test_verdicts_are_made_beside_the_plain_model_s_completions_and_prompts_only_where_it_thinks(cells: Cells) -> None:
    plain = "<results>/completions/{model}/{dataset}/{template}/plain/none/{decoding}.parquet"
    assert cells.verdict_inputs("llama-2-7b-chat", "paper") == {"completions": PATHS["completions"], "plain": plain}
    assert cells.verdict_inputs("llama-2-7b-chat", "minos")["judged"] == PATHS["judged"]
    thinks = cells.verdict_inputs("qwen3-0.6b", "paper")
    assert thinks["prompts"] == PATHS["prompts"] and thinks["model"] == PATHS["models"]


def test_cells_have_effects_or_serve_for_comparison(cells: Cells) -> None:
    measured, compared = cells.with_effects(), cells.with_plain_rows()
    assert {cell.plan for cell in compared} == {"none", "random-3"}
    assert {cell.plan for cell in measured} == {"ships-1", "sahara-2@malicious_instruct", "sahara-2", "mine"}
    assert sorted([*measured, *compared]) == cells.all


def test_judges_with_labels_are_calibrated_and_several_judges_of_the_same_answers_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("labels.csv", "more.csv"):
        Path(name).write_text("query,text,harmful\n", encoding="utf-8")

    def cells(**judges: dict[str, Any]) -> Cells:
        declared = {name: {"kind": "keywords", "list": "paper", **values} for name, values in judges.items()}
        return Cells(load_config(settings(judges=list(declared)) | {"judges": declared}))

    alone = cells(one={})
    assert alone.labelled() == [] == alone.by_several_judges()
    assert {"calibration", "agreement"}.isdisjoint(alone.measured())
    labelled = cells(one={"labels": "labels.csv"})
    assert labelled.labelled() == ["<results>/labelled/one.parquet"]
    assert labelled.measured()["calibration"] == "<results>/calibration.parquet"
    assert "agreement" not in labelled.measured()
    both = cells(one={"labels": "labels.csv"}, two={}, three={"labels": "more.csv"})
    assert both.labelled() == ["<results>/labelled/one.parquet", "<results>/labelled/three.parquet"]
    assert both.by_several_judges() == both.all and "agreement" in both.measured()


def test_judges_that_judge_other_cells_are_not_compared() -> None:
    raw = settings(judges=["paper"], datasets=["advbench"])
    raw["studies"]["other"] = raw["studies"]["main"] | {"judges": ["reference"], "datasets": ["jailbreakbench"]}
    assert Cells(load_config(raw)).by_several_judges() == []


def test_leaks_are_dropped_in_every_cell_of_a_study_that_says_so() -> None:
    assert Cells(load_config(settings())).drop_leaks() == []
    raw = settings()
    raw["studies"]["strict"] = raw["studies"]["main"] | {"datasets": ["advbench"], "leaks": "drop"}
    both = Cells(load_config(raw))
    expected = [list(cell) for cell in both.with_effects() if cell.dataset == "advbench"]
    assert both.drop_leaks() == expected != []
    assert both.all == Cells(load_config(settings())).all, "no other job changes"


def test_sources_are_the_user_s_files_or_what_the_workflow_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (folder / name).touch()
    queries = tmp_path / "q.txt"
    queries.touch()
    raw = settings() | {
        "models": {
            "local": {"path": str(folder)},
            "taught": {"demo": True},
            "mixed": {"attention_from": "local", "rest_from": "taught"},
        },
        "datasets": {"mine": {"path": str(queries)}, "made": {"demo": "benign"}},
    }
    cells = Cells(load_config(raw))
    assert cells.model_source("local") == [] == cells.dataset_source("mine"), "their contents count"
    assert cells.model_content("local") != "" == cells.model_content("taught") == cells.model_content("mixed")
    assert cells.dataset_content("mine") != "" == cells.dataset_content("made") == cells.dataset_content("advbench")
    assert cells.model_source("taught") == "<results>/models/taught"
    assert cells.model_source("mixed") == ["<results>/models/local.json", "<results>/models/taught.json"]
    assert cells.model_source("llama-2-7b-chat") == []
    assert cells.dataset_source("made") == []
    assert cells.dataset_source("advbench") == "<results>/datasets/.advbench.download"
    with pytest.raises(SafetyHeadsError, match="Did you mean 'local'"):
        cells.model_source("locl")


@pytest.mark.parametrize(
    ("section", "name", "keys", "found"),
    [
        ("ablations", "plain", (), {}),
        ("ablations", "scaling", (), {"kind": "scaling", "epsilon": 1e-5}),
        ("models", "llama-2-7b-chat", ("attention",), {"attention": "auto"}),
        (
            "models",
            "taught",
            ("demo",),
            {"demo": {"aligned": True, "kind": "two", "seed": 0, "planted": ["L01H03", "L02H06"]}},
        ),
        ("models", "llama-2-7b-chat", ("demo",), {}),
        ("datasets", "made", ("demo", "sha256"), {"demo": "benign"}),
    ],
)
def test_a_job_is_given_what_it_depends_on(section: str, name: str, keys: tuple[str, ...], found: object) -> None:
    raw = settings() | {"models": {"taught": {"demo": True}}, "datasets": {"made": {"demo": "benign"}}}
    assert load_config(raw).given(section, name, keys) == found


def test_rates_that_will_be_gone_are_named(tmp_path: Path) -> None:
    import pandas as pd

    from safetyheads.artifacts.files import write

    before = Cells(load_config(settings(datasets=["advbench", "malicious_instruct"])))
    assert rates_to_be_gone(before, tmp_path) is None, "no rates yet"
    numbers = dict.fromkeys(STAGES["rates"].columns.split()[len(Cell._fields) + 2 :], 0.0) | {"corrected_by": None}
    rows = [{**cell._asdict(), "variant": variant, "n": 1, **numbers} for cell in before.all for variant in ("a", "b")]
    write("rates", tmp_path / "rates.parquet", pd.DataFrame(rows), {}, {})
    assert rates_to_be_gone(before, tmp_path) is None
    more = Cells(load_config(settings(datasets=["advbench", "jailbreakbench", "malicious_instruct"])))
    assert rates_to_be_gone(more, tmp_path) is None, "cells that are added take nothing away"
    told = rates_to_be_gone(Cells(load_config(settings(datasets=["advbench"]))), tmp_path)
    gone = [Cell(*cell) for cell in before.all if cell.dataset == "malicious_instruct"]
    assert told is not None
    assert f"rates of {len(gone)} cells" in told
    assert f"  {'/'.join(gone[0])}\n" in told
    assert f"and {len(gone) - 5} more" in told
    assert "advbench/" not in told


def test_the_hours_are_told_for_what_is_planned(cells: Cells) -> None:
    told = hours(cells.config, cells, on_gpu=True)
    assert told is not None
    assert "llama-2-7b-chat" in told
    assert "GPU hours" in told
    small = settings() | {"models": {"llama-2-7b-chat": {"demo": True}}, "datasets": {"advbench": {"demo": "benign"}}}
    small["datasets"]["jailbreakbench"] = {"demo": "harmful"}
    small["studies"]["main"]["plans"] = ["none"]
    few = load_config(small)
    assert hours(few, Cells(few), on_gpu=False) is None


def test_a_judge_that_no_study_has_is_told_before_anything_is_computed(cells: Cells) -> None:
    asked, known = JudgeCells(cells), ("llama-2-7b-chat", "advbench", "simple")
    with pytest.raises(SafetyHeadsError, match="No study has the judge 'minos' on the answers of model llama-2-7b"):
        asked.judged_inputs("minos", *known)
    with pytest.raises(SafetyHeadsError, match="No study has the judge 'minos', so there is nothing"):
        asked.to_judge_inputs("minos")
    assert asked.judged_inputs("paper", *known) and asked.to_judge_inputs("paper")["queries"]
