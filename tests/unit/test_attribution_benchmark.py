"""The benchmark of attributions counts what it says: on made-up scores, and on the kinds of demo models."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safetyheads.demo.organisms import ORGANISMS
from safetyheads.demo.requests import Category
from safetyheads.heads import DEMO_GRID, Head, all_heads

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from attributions import (
    COLUMNS,
    PAGE,
    RESULTS,
    Found,
    controls,
    data_sets,
    first_of,
    in_order,
    measured,
    needed,
    passes,
    positions,
    recalls,
    summary,
    tables_of,
    with_kept,
)
from pages import filled

HEADS = all_heads(*DEMO_GRID)
PLANTED = (Head(1, 3), Head(2, 6))


def scores(**of: float) -> np.ndarray:
    return np.array([of.get(str(head), 0.0) for head in HEADS])


def test_recall_and_ranks_are_those_of_the_first_heads() -> None:
    found = Found(scores(L01H03=2.0, L00H00=1.5, L02H06=1.0), chosen=(Head(1, 3), Head(0, 0), Head(0, 1)))
    row = measured(found, PLANTED, ORGANISMS["two"], "knockouts")
    assert (row["n"], row["recall"], row["worst_rank"], row["false_alarms"]) == (2, 0.5, 3, 1)
    assert (row["chosen"], row["precision"]) == (3, pytest.approx(1 / 3))
    assert row["auroc"] == pytest.approx((30 + 29) / 60)
    assert {head for head, chance in row["named"].items() if chance} == {Head(1, 3), Head(0, 0)}


def test_lots_decide_between_equal_scores_and_no_score_names_no_head() -> None:
    for planted in (PLANTED, HEADS[:2]):
        row = measured(Found(scores()), planted, ORGANISMS["two"], "top")
        assert (row["recall"], row["auroc"], row["worst_rank"], row["false_alarms"]) == (0, 0.5, 16.5, 0)
        assert row["chosen"] is None and row["precision"] is None
    row = measured(Found(scores(L00H00=2.0, L00H01=1.0, L01H03=1.0, L02H06=1.0)), PLANTED, ORGANISMS["two"], "mask")
    assert row["recall"] == pytest.approx(1 / 3) and row["worst_rank"] == 3
    assert row["named"][Head(0, 0)] == 1 and row["named"][Head(0, 1)] == pytest.approx(1 / 3)
    assert first_of(np.array([3.0, 1.0, -1.0]), 3).tolist() == [1, 1, 0]


def test_passes_are_those_of_the_steps_and_prompts_that_there_are() -> None:
    found = {method: passes(method, 2, 100, 50) for method in ("single", "top", "contrast", "sahara", "gradient")}
    assert found == {"single": 32, "top": 32, "contrast": 48, "sahara": 64, "gradient": 3 + 0}
    assert passes("refusal_direction", 2, 100, 50) == 3


def test_a_search_is_taken_at_its_word() -> None:
    found = Found(scores(L00H00=9.0), ranked=(Head(2, 6), Head(1, 3), Head(0, 0)))
    assert measured(found, PLANTED, ORGANISMS["two"], "sahara")["recall"] == 1


def test_a_suppressor_is_found_at_the_other_end_by_who_has_signs() -> None:
    one = (Head(1, 3),)
    for method, recall in (("gradient", 1), ("top", 0)):
        row = measured(Found(scores(L01H03=-2.0, L00H00=1.0)), one, ORGANISMS["suppressor"], method)
        assert row["recall"] == recall and row.get("signed") == (True if method == "gradient" else None)
    wrong = measured(Found(scores(L01H03=2.0)), one, ORGANISMS["suppressor"], "gradient")
    assert wrong["signed"] is False and wrong["recall"] == 0


def test_as_many_heads_are_ablated_as_a_kind_needs() -> None:
    assert {name: needed(organism) for name, organism in ORGANISMS.items()} == {
        **{"two": 2, "one": 1, "three": 3, "backup": 2, "spread": 4, "decoy": 2, "suppressor": 1, "early": 2, "late": 2}
    }


@pytest.mark.parametrize("kind", ORGANISMS)
def test_data_sets_have_as_many_guarded_prompts_as_they_say(kind: str) -> None:
    organism = ORGANISMS[kind]
    topics = 3 if Category.GUARDED_C in organism.categories else 2
    counts = {name: Counter(row.category for row in rows) for name, rows in data_sets(organism).items()}
    refused = {name: of.pop(Category.ALWAYS_REFUSED, 0) for name, of in counts.items()}
    assert {name: sum(of.values()) for name, of in counts.items()} == {
        **{"guarded": 50 * topics, "half": 50 // topics * topics, "few": 12}
    }
    assert (refused["guarded"], refused["few"]) == (0, 88) and refused["half"] + sum(counts["half"].values()) == 100
    assert all(len(of) == topics for of in counts.values())


@pytest.mark.parametrize("kind", ORGANISMS)
def test_planted_heads_are_drawn_where_the_kind_allows_them(kind: str) -> None:
    organism = ORGANISMS[kind]
    drawn = [positions(organism, seed) for seed in range(6)]
    assert drawn[0] == (organism.planted, organism.decoy)
    assert len(set(drawn)) > (1 if organism.one_layer else 4)
    for planted, decoy in drawn:
        organism.check(planted, decoy)


def rows(*some: dict[str, object]) -> pd.DataFrame:
    given = {"seed": 0, "data": "guarded", "recall": 1.0, "seconds": 0.5, "passes": 32.0}
    return pd.DataFrame([given | row for row in some]).reindex(columns=COLUMNS)


MADE = rows(
    {"kind": "two", "method": "top", "decoy_named": None, "freed": 1.0, "control_freed": 0.25, "p_control": 0.04},
    {"kind": "two", "method": "single", "seed": 1, "recall": 0.5, "auroc": 0.9},
    {"kind": "two", "method": "single", "recall": 0.0, "auroc": 0.6},
    {"kind": "one", "method": "top", "data": "half", "auroc": 0.1},
    {"kind": "one", "method": "top", "freed": 0.5, "control_freed": 0.5, "p_control": 1.0},
)


def test_tables_are_means_over_the_models_of_a_kind() -> None:
    assert recalls(MADE, "guarded").splitlines() == [
        *("| guarded | single | top |", "| --- | --- | --- |", "| two | 0.25 | 1.00 |", "| one | nan | 1.00 |")
    ]
    head, _, single, top = summary(MADE).splitlines()
    assert head.startswith("| method | auroc | worst rank |") and head.endswith("| seconds | passes |")
    assert single == "| single | 0.75 | – | – | – | – | – | – | 0.50 | 32 |"
    assert top.startswith("| top | – |"), "what was chosen on half of the prompts has its own table"
    assert controls(MADE).splitlines()[2:] == ["| two | 1.00 (0.25), 0.04 |", "| one | 0.50 (0.50), 1.00 |"]


def test_rows_stand_by_kind_as_these_are_listed_and_by_seed() -> None:
    made = in_order(MADE)
    assert [tuple(row) for row in made[["kind", "seed", "method"]].to_numpy()] == [
        *(("two", 0, "top"), ("two", 0, "single"), ("two", 1, "single"), ("one", 0, "top"), ("one", 0, "top"))
    ]
    assert list(made.columns) == COLUMNS


def test_rows_of_other_models_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "attributions.csv"
    assert with_kept(MADE, path).equals(MADE)
    MADE.to_csv(path, index=False)
    again = with_kept(rows({"kind": "two", "method": "mask", "seconds": 0.123456}), path)
    assert [tuple(row) for row in again[["kind", "seed", "method"]].to_numpy()] == [
        *(("two", 1, "single"), ("one", 0, "top"), ("one", 0, "top"), ("two", 0, "mask"))
    ]
    assert again["seconds"].iloc[-1] == 0.1235


def test_the_tables_of_the_page_are_those_of_the_rows() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, tables_of(pd.read_csv(RESULTS / "attributions.csv"))) == page
    assert filled("a\n<!-- table: few -->\nold\n<!-- end -->\nz", {"few": "new"}) == (
        "a\n<!-- table: few -->\nnew\n<!-- end -->\nz"
    )
    assert tables_of(MADE)["models"] == "Models: two 2 of 2, one 1 of 1."
    failed = pd.concat([MADE, rows({"kind": "one", "seed": 5, "data": "not trained"})])
    assert tables_of(failed)["models"] == "Models: two 2 of 2, one 1 of 2."
    assert tables_of(failed)["guarded"] == tables_of(MADE)["guarded"]
