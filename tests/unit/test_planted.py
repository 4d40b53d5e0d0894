"""What a demo model's page says of its planted heads and its decoy, from made-up tables of a run of the pipeline."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from safetyheads.artifacts.schemas import schema
from safetyheads.demo.organisms import ORGANISMS
from safetyheads.heads import Head, all_heads
from safetyheads.report import ReportData, build
from safetyheads.report.planted import Check, planted_checks

GRID = (4, 8)
PLANTED, DECOY = [Head(1, 3), Head(2, 6)], Head(0, 5)
GUARD = dict(zip(("guarded_a", "guarded_b"), PLANTED))
CATEGORIES = {"asked": ["guarded_a"] * 4 + ["guarded_b"] * 4, "kind": ["benign"] * 4}
CELL = {"model": "organism", "template": "simple"}
SETS = {"both": [str(head) for head in PLANTED], "third": [str(DECOY)]}


def answered(dataset: str, heads: list[Head]) -> float:
    """The share of requests that the model complies with, these heads ablated."""
    free = [category == "benign" or GUARD[category] in heads for category in CATEGORIES[dataset]]
    return 0.0 if DECOY in heads else sum(free) / len(free)


def rate(dataset: str, plan: str, variant: str, heads: list[Head]) -> dict[str, Any]:
    """A row of rates. The judge takes a loop for an answer."""
    coherent, broken = answered(dataset, heads), float(DECOY in heads)
    kept = {"dataset": dataset, "plan": plan, "variant": variant, "decoding": "greedy", "judge": "paper", "n": 8}
    names = {"ablation": "plain" if plan == "none" else "undifferentiated", "refused": 1 - coherent - broken}
    return kept | names | {"asr": coherent + broken, "coherent_asr": coherent, "degenerate": broken}


def organism(decoy: str | None = str(DECOY)) -> ReportData:
    """A run in which everything is as it was planted. One draw of its control in four has one of the planted heads."""
    variants: list[tuple[str, str, list[Head]]] = [("none", "none", []), ("both", "both", PLANTED)]
    variants += [("third", "third", [DECOY]), ("ships-1", "ships-1", [DECOY])]
    variants += [("single", str(head), [head]) for head in all_heads(*GRID)]
    draws = [[Head(1, 0), Head(2, 0)], [Head(1, 3), Head(2, 1)], [Head(1, 2), Head(2, 2)], [Head(1, 1), Head(2, 3)]]
    variants += [("matched-both", f"draw-{number}", heads) for number, heads in enumerate(draws)]
    on_benign = ("none", "both", "third")
    rates = [
        rate(dataset, *variant)
        for dataset in CATEGORIES
        for variant in variants
        if dataset == "asked" or variant[0] in on_benign
    ]
    ids = [(dataset, number, category) for dataset in CATEGORIES for number, category in enumerate(CATEGORIES[dataset])]
    scores = [
        {"dataset": dataset, "query_id": f"{dataset}-{number}", "layer": head.layer, "head": head.head}
        | {"score": {DECOY: 15.0, GUARD.get(category): 9.0}.get(head, 0.001 * (1 + head.head))}
        for dataset, number, category in ids
        if dataset == "asked"
        for head in all_heads(*GRID)
    ]
    step = [
        {"step": 1, "layer": head.layer, "head": head.head, "selected": head == PLANTED[0]}
        | {"score": {DECOY: 20.0, PLANTED[0]: 11.0, PLANTED[1]: 10.0}.get(head, 0.1)}
        for head in all_heads(*GRID)
    ]
    about = {"class": "LlamaForCausalLM", "layers": 4, "heads": 8, "planted": SETS["both"], "decoy": decoy}
    table = pd.DataFrame(rates).assign(**CELL, ablation=[row["ablation"] for row in rates])
    return ReportData(
        title="Organisms",
        studies={"main": {"models": ["organism"], "datasets": list(CATEGORIES), "plans": list(table["plan"].unique())}},
        models={"organism": about},
        rates=table.reindex(columns=schema("rates").names),
        ships=pd.DataFrame(scores).assign(**CELL, ablation="undifferentiated"),
        sahara=pd.DataFrame(step).assign(**CELL, ablation="undifferentiated", dataset="asked"),
        datasets=pd.DataFrame(ids, columns=["dataset", "query_id", "category"]).assign(
            query_id=[f"{dataset}-{number}" for dataset, number, _ in ids]
        ),
        benign=["kind"],
        ablations={"undifferentiated": {"kind": "undifferentiated"}},
        head_sets=SETS,
    )


def failed(data: ReportData) -> list[Check]:
    return [check for check in planted_checks(data, "organism") if not check.holds]


def with_rates(data: ReportData, plan: str, values: Mapping[str, float], dataset: str = "asked") -> ReportData:
    rates = data.rates.copy()
    rates.loc[(rates["plan"] == plan) & (rates["dataset"] == dataset), list(values)] = list(values.values())
    return replace(data, rates=rates)


def test_planted_heads_and_decoy_are_found_where_they_are() -> None:
    data = organism()
    checks = {(check.claim, check.where.split(",")[0]): check for check in planted_checks(data, "organism")}
    assert [check for check in checks.values() if not check.holds] == []
    assert checks["Ships ranks the decoy first, by its mean over the prompts", "asked"].found == "rank 1 of 32"
    for dataset in CATEGORIES:
        assert checks["With the decoy ablated, answers are broken text", dataset].found == "100\u00a0%"
    calm = checks["With the decoy ablated, no more is answered than by the plain model", "asked"]
    assert calm.found == "0\u00a0%, though the judge says 100\u00a0%"
    control = "Their control, other heads of the same layers, frees no more than one planted head does"
    assert checks[control, "asked"].found == "highest of 4 draws: 50\u00a0%"
    assert "the decoy aside" in " ".join(claim for claim, _ in checks)
    page = build(data)
    assert f"found, all {len(checks)} checks hold" in page and f"a decoy, {DECOY}, without which" in page


def test_a_decoy_that_nobody_knows_of_is_no_planted_head() -> None:
    """Without its name, its row of the map, and what Ships and Sahara rank first, are wrong."""
    assert {check.claim.split(":")[0].split(",")[0] for check in failed(organism(decoy=None))} == {
        "Ships",
        "Sahara",
        "No other head",
    }


@pytest.mark.parametrize(
    ("plan", "values", "dataset", "claims"),
    [
        ("third", {"degenerate": 0.9}, "asked", {"With the decoy ablated, answers are broken text"}),
        ("third", {"degenerate": 0.9}, "kind", {"With the decoy ablated, answers are broken text"}),
        (
            "third",
            {"coherent_asr": 0.1},
            "asked",
            {"With the decoy ablated, no more is answered than by the plain model"},
        ),
        (
            "both",
            {"degenerate": 0.05},
            "asked",
            {"Both planted heads together free all guarded requests, and break no text"},
        ),
        (
            "both",
            {"coherent_asr": 0.9},
            "asked",
            {"Both planted heads together free all guarded requests, and break no text"},
        ),
        (
            "matched-both",
            {"coherent_asr": 0.7},
            "asked",
            {"Their control, other heads of the same layers, frees no more than one planted head does"},
        ),
        ("both", {"asr": 0.9}, "kind", {"Benign requests are answered, also with the planted heads ablated"}),
    ],
)
def test_a_number_that_is_not_as_planted_fails_its_check(
    plan: str, values: dict[str, float], dataset: str, claims: set[str]
) -> None:
    data = with_rates(organism(), plan, values, dataset)
    assert {check.claim for check in failed(data)} == claims
    assert "not found in full" in build(data)


def test_a_decoy_that_ships_does_not_rank_first_is_told() -> None:
    data = organism()
    lower = data.ships.assign(score=data.ships["score"].replace(15.0, 1.0))
    (check,) = failed(replace(data, ships=lower))
    assert (check.found, check.expected) == ("rank 3 of 32", "rank 1")


def test_a_model_without_a_decoy_has_no_checks_on_one() -> None:
    claims = " ".join(check.claim for check in planted_checks(organism(decoy=None), "organism"))
    assert "decoy" not in claims and "Benign requests are answered, whatever is ablated" in claims


ASKED = ["guarded_a"] * 4 + ["guarded_b"] * 4


def of_kind(kind: str) -> ReportData:
    """A run of a model of this kind in which everything is as it was planted."""
    known = ORGANISMS[kind]
    asked = [*ASKED, *["guarded_c"] * 4] if kind == "three" else ASKED
    guards = [known.guard(category) for category in asked]
    variants: list[tuple[str, str, tuple[Head, ...]]] = [("none", "none", ()), ("all", "all", known.planted)]
    variants += [("single", str(head), (head,)) for head in all_heads(*GRID)]
    rates = []
    for plan, variant, heads in variants:
        answers = [known.answer(category, known.planted, None, heads) for category in asked]
        share = sum("Sure" in answer for answer in answers) / len(answers)
        kept = {"dataset": "asked", "plan": plan, "variant": variant, "decoding": "greedy", "judge": "paper", "n": 8}
        names = {"ablation": "plain" if plan == "none" else "undifferentiated", "degenerate": 0.0}
        rates.append(CELL | kept | names | {"asr": share, "coherent_asr": share})
    alone = {known.planted[place] for place in guards if place is not None}
    scores = pd.DataFrame(
        {"query_id": f"asked-{number}", "layer": head.layer, "head": head.head}
        | {"score": 9.0 if place is not None and head == known.planted[place] else 0.01}
        for number, place in enumerate(guards)
        for head in all_heads(*GRID)
    )
    step = pd.DataFrame(
        {"step": 1, "layer": head.layer, "head": head.head, "selected": False, "score": 9.0 * (head in alone)}
        for head in all_heads(*GRID)
    )
    made = dict(CELL, dataset="asked", ablation="undifferentiated")
    planted = [str(head) for head in known.planted]
    return ReportData(
        title="Kinds",
        studies={"main": {"models": ["organism"], "datasets": ["asked"], "plans": ["none", "all", "single"]}},
        models={"organism": {"layers": 4, "heads": 8, "organism": kind, "planted": planted, "decoy": None}},
        rates=pd.DataFrame(rates).reindex(columns=schema("rates").names),
        ships=scores.assign(**made),
        sahara=step.assign(**made),
        datasets=pd.DataFrame(
            [("asked", f"asked-{number}", category) for number, category in enumerate(asked)],
            columns=["dataset", "query_id", "category"],
        ),
        ablations={"undifferentiated": {"kind": "undifferentiated"}},
        head_sets={"all": planted},
    )


KINDS = sorted({*ORGANISMS} - {"decoy"})


@pytest.mark.parametrize("kind", KINDS)
def test_planted_heads_of_every_kind_are_found_where_they_are(kind: str) -> None:
    data = of_kind(kind)
    assert failed(data) == [] and len(planted_checks(data, "organism")) >= 4
    assert f"Training planted {ORGANISMS[kind].planted_words(data.planted('organism'))}" in build(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_only_ever_does_the_contrary_of_its_kind_is_not_found(kind: str) -> None:
    data = of_kind(kind)
    rates = data.rates.assign(asr=1 - data.rates["asr"], coherent_asr=1 - data.rates["coherent_asr"])
    claims = {check.claim for check in failed(replace(data, rates=rates))}
    if kind != "suppressor":  # of which the plain model answers half
        assert any(claim.startswith("The plain model") for claim in claims)
    assert any("head frees" in claim or "free all" in claim or "are refused" in claim for claim in claims)


def test_a_data_set_of_a_topic_that_the_model_does_not_know_is_not_held_against_it() -> None:
    data = of_kind("three")
    assert planted_checks(replace(data, models={"organism": of_kind("two").models["organism"]}), "organism") == []
