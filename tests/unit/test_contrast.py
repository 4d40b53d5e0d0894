"""Contrast: heads by their score less that on benign queries or in a base model, and where these others come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.chosen_heads import assign, contrast, top_heads
from safetyheads.config.load import Config, load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, all_heads
from safetyheads.jobs.cells import Cells
from safetyheads.jobs.planning import hours
from safetyheads.jobs.sources import PATHS
from safetyheads.plans import parse_plan

GRID = (2, 3)
BENIGN = {"harmless": {"url": "https://example.org/a.csv", "query": "q", "benign": True}}


def ships_of(scores: list[list[float]]) -> pd.DataFrame:
    rows = [
        {"query_id": f"q-{number}", "layer": head.layer, "head": head.head, "score": score}
        for number, values in enumerate(scores)
        for head, score in zip(all_heads(*GRID), values)
    ]
    return pd.DataFrame(rows).astype({"layer": "int16", "head": "int16"})


def raw(plans: list[str], models: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    models = models or {"llama": {"repo": "meta-llama/Llama-2-7b-chat-hf"}}
    study = {
        "models": [next(iter(models))],
        "datasets": changes.pop("measured", ["advbench"]),
        "templates": ["simple"],
        "ablations": ["undifferentiated"],
        "plans": plans,
        "decodings": ["greedy"],
        "judges": ["paper"],
    }
    return {"models": models, "studies": {"main": study}, **changes}


def config(plans: list[str], **changes: Any) -> Config:
    return load_config(raw(plans, **changes))


DEMO = {"demo": {"demo": True}}
TWO = {"chat": {"repo": "meta-llama/Llama-2-7b-chat-hf"}, "base": {"repo": "meta-llama/Llama-2-7b-hf"}}
ON_BASE = {"contrast": {"base": "base"}}


def test_what_heads_do_on_benign_queries_too_does_not_count() -> None:
    harmful = ships_of([[9.0, 1.0, 0.0, 0.5, 0.0, 0.0], [7.0, 3.0, 0.0, 0.5, 0.0, 0.0]])
    benign = ships_of([[8.0, 0.0, 0.0, 0.5, 0.0, 1.0]] * 3)
    found = contrast(harmful, benign)
    assert found["score"].tolist() == [0.0, 2.0, 0.0, 0.0, 0.0, -1.0]
    assert top_heads(harmful, 1) == (Head(0, 0),)
    for name in ("contrast-1", "contrast-1@other"):
        chosen = assign(parse_plan(name), ["q-0", "q-1"], GRID, scores=harmful, less=benign)
        assert [one.heads for one in chosen] == [(Head(0, 1),)] * 2
    assert assign(parse_plan("contrast-2"), ["q-0"], GRID, scores=harmful, less=benign)[0].heads == (
        Head(0, 0),
        Head(0, 1),
    )


@given(st.lists(st.lists(st.integers(0, 5).map(float), min_size=6, max_size=6), min_size=1, max_size=4))
def test_nothing_subtracted_leaves_top_and_the_same_subtracted_leaves_nothing(scores: list[list[float]]) -> None:
    table = ships_of(scores)
    for n in (1, 3):
        top = assign(parse_plan(f"top-{n}"), ["q-0"], GRID, scores=table)
        less = table.assign(score=0.0)
        assert [one.heads for one in assign(parse_plan(f"contrast-{n}"), ["q-0"], GRID, scores=table, less=less)] == [
            one.heads for one in top
        ]
    np.testing.assert_allclose(contrast(table, table)["score"], 0.0, atol=1e-12)


def test_a_contrast_with_a_model_of_another_shape_is_refused() -> None:
    table = ships_of([[1.0] * 6])
    with pytest.raises(SafetyHeadsError, match="of 6 heads and those to be subtracted of 3: .* the same shape"):
        contrast(table, table[table["layer"] == 0])


def test_a_contrast_without_what_it_subtracts_is_refused() -> None:
    with pytest.raises(SafetyHeadsError, match="'contrast-1' needs the scores of ships that it subtracts"):
        assign(parse_plan("contrast-1"), ["q-0"], GRID, scores=ships_of([[1.0] * 6]))


@pytest.mark.parametrize(
    ("found", "subtracted"),
    [
        (config(["contrast-2"], models=DEMO, measured=["demo_harmful"]), ("demo", "demo_benign")),
        (config(["contrast-2"], datasets=BENIGN), ("llama", "harmless")),
        (config(["contrast-2"], measured=["advbench", "jailbreakbench_benign"]), ("llama", "jailbreakbench_benign")),
        (config(["contrast-2"], attribution={"benign": "xstest"}, datasets=BENIGN), ("llama", "xstest")),
        (config(["contrast-2"], models=DEMO, attribution={"benign": "xstest"}), ("demo", "xstest")),
        (config(["contrast-2"], models=TWO, attribution=ON_BASE), ("base", "advbench")),
        (config(["contrast-2"], models=TWO, attribution={**ON_BASE, "benign": "xstest"}), ("base", "advbench")),
    ],
)
def test_what_is_subtracted(found: Config, subtracted: tuple[str, str]) -> None:
    name = next(iter(found.models))
    dataset = next(iter(found.studies.values())).datasets[0]
    assert found.subtracted(name, dataset, found.named) == subtracted
    cells = Cells(found)
    assert {cell[:2] for cell in cells.scored("ships")} == {(name, dataset), subtracted}
    assert cells.contrasts() == {(name, dataset): subtracted}
    inputs = cells.completion_inputs("contrast-2", "undifferentiated", name, dataset)
    assert inputs["scores"] == PATHS["ships"]
    assert inputs["less"] == "<results>/ships/{}/{}/{{template}}/{{ablation}}.parquet".format(*subtracted)


@pytest.mark.parametrize("plan", ["contrast-2@jailbreakbench", "matched-contrast-2@jailbreakbench"])
def test_another_data_set_may_choose_the_heads(plan: str) -> None:
    found = Cells(config([plan], datasets=BENIGN))
    assert {cell.dataset for cell in found.scored("ships")} == {"jailbreakbench", "harmless"}


def test_on_a_benign_data_set_the_heads_chosen_on_the_others_are_measured() -> None:
    found = Cells(config(["contrast-2"], measured=["advbench", "jailbreakbench_benign"]))
    plans = {(cell.dataset, cell.plan) for cell in found.all if cell.plan != "none"}
    assert plans == {("advbench", "contrast-2"), ("jailbreakbench_benign", "contrast-2@advbench")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ["'contrast-2', but a contrast needs a data set of benign queries, and none is known", "{benign: NAME}"]),
        (
            {"measured": ["advbench", "jailbreakbench_benign", "alpaca"]},
            ["there are several: alpaca, jailbreakbench_benign"],
        ),
        ({"attribution": {"benign": "xtest"}}, ["attribution.benign: found 'xtest'", "Did you mean 'xstest'?"]),
        ({"attribution": {"contrast": {"base": "llma"}}}, ["attribution.contrast.base: found 'llma'", "'llama'?"]),
        ({"attribution": {"contrast": {"base": "llama"}}}, ["'llama' on 'advbench' would subtract the same scores"]),
        ({"attribution": {"benign": "advbench"}}, ["'advbench' would subtract the same scores"]),
        (
            {"models": {**TWO, "base": {"demo": True}}, "attribution": ON_BASE},
            ["'chat' and 'base' have 32 layers of 32 heads and 4 layers of 8 heads", "of the same shape"],
        ),
        (
            {"datasets": {"local": {"path": "no.csv", "query": "q", "benign": True}}},
            ["datasets.local.path: found 'no.csv', where there is no file"],
        ),
        (
            {"models": {**TWO, "base": {"path": "nowhere"}}, "attribution": ON_BASE},
            ["models.base.path: found 'nowhere', where there is no folder"],
        ),
    ],
)
def test_a_contrast_that_cannot_be_stops_the_run_before_any_job(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SafetyHeadsError) as caught:
        config(["contrast-2"], **changes)
    for word in words:
        assert word in str(caught.value)


def test_a_key_at_the_wrong_place_is_told_with_its_section() -> None:
    with pytest.raises(SafetyHeadsError, match=r"unknown key 'contrast'; .* It is a key of attribution\."):
        config(["contrast-2"], contrast={"base": "base"})


def test_no_benign_data_set_is_asked_for_where_no_plan_contrasts(tmp_path: Path) -> None:
    found = Cells(config(["ships-1"]))
    assert set(found.scores_inputs("ships", "llama")) == {"model", "prompts"}
    assert found.contrasts() == {}


def test_ships_have_the_benign_prompts_for_their_signs() -> None:
    found = Cells(config(["ships-1"], datasets=BENIGN))
    assert found.scores_inputs("ships", "llama")["benign"] == "<results>/prompts/{model}/harmless/{template}.parquet"
    assert {cell.dataset for cell in found.scored("ships")} == {"advbench"}


def test_the_scores_that_are_subtracted_are_in_the_table_of_costs() -> None:
    def ships(plan: str, **changes: Any) -> float:
        found = config([plan], **changes)
        told = hours(found, Cells(found), on_gpu=False)
        assert told is not None
        heading, *rows = [line for line in told.splitlines() if "ships" in line or line.strip()[:4] in ("chat", "base")]
        place = heading.split().index("ships") + 1
        return sum(float(row.split()[place]) for row in rows)

    both = ships("contrast-2", models=TWO, attribution=ON_BASE)
    assert both == pytest.approx(2 * ships("top-2", models=TWO), rel=0.1)


@pytest.mark.parametrize("plan", ["gradient-2", "matched-knockouts-2", "refusal_direction-1@harmless", "mask-2"])
def test_prompts_that_would_be_harmful_and_benign_stop_the_run_before_any_job(plan: str) -> None:
    given = {"datasets": BENIGN} if "@" in plan else {"attribution": {"benign": "advbench"}}
    both = "harmless" if "@" in plan else "advbench"
    with pytest.raises(
        SafetyHeadsError, match=rf"found '{plan}', but \w+ tells .* and those of '{both}' would be both"
    ):
        config([plan], **given)


def test_the_method_that_needs_benign_queries_is_named_also_in_a_control() -> None:
    with pytest.raises(SafetyHeadsError, match=r"'matched-mask-2', but mask needs .* or one data set with `benign: t"):
        config(["matched-mask-2"])


def test_templates_that_no_study_compares_are_told() -> None:
    attacks = {"attribution": {"attacks": {"direct": "simple"}}}
    with pytest.raises(SafetyHeadsError, match=r"attribution.attacks: found \{direct: simple\}, but no study has both"):
        config(["ships-1"], **attacks)
    with pytest.raises(SafetyHeadsError, match="'simple' beside itself"):
        config(["ships-1"], attribution={"attacks": {"simple": "simple"}})


def test_few_masks_are_an_error() -> None:
    with pytest.raises(SafetyHeadsError, match="attribution.knockouts.masks: found 10 .* at least 20"):
        config(["ships-1"], attribution={"knockouts": {"masks": 10}})
