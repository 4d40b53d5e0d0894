"""What is kept of the atlas: tables without texts, which a later run is compared with, and those of the page."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from atlas_tables import KEPT, PAGE, differences, keep, tables
from pages import filled

CELL = {"model": "m", "dataset": "even", "template": "chat", "ablation": "undifferentiated"}
MEASURED = {"decoding": "greedy", "judge": "paper"}


def rate(plan: str, **values: Any) -> dict[str, Any]:
    found = {"coherent_asr": 0.5, "coherent_low": 0.4, "coherent_high": 0.6, "asr": 0.7, "delta_low": None}
    return (
        {**CELL, "plan": plan, **MEASURED, "variant": plan, "n": 50, "refused": 0.25, "degenerate": 0.125}
        | found
        | values
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "ships").mkdir()
    rows = [
        {**CELL, "dataset": dataset, "query_id": f"q{at}", "layer": 0, "head": head, "score": score * (at + 1)}
        for dataset, scores in (("even", (0.5, 2.0, 1.0)), ("questions", (0.0, 2.0, 0.0)))
        for head, score in enumerate(scores)
        for at in range(2)
    ]
    pd.DataFrame(rows).assign(refusal_shift=-1.0, answer_shift=0.0).to_parquet(tmp_path / "ships" / "a.parquet")
    (tmp_path / "sahara").mkdir()
    steps = [
        {**CELL, "step": step, "layer": 0, "head": head, "score": 9.0 - head, "selected": head == step}
        for step in (1, 2)
        for head in range(3)
    ]
    pd.DataFrame(steps).to_parquet(tmp_path / "sahara" / "a.parquet")
    (tmp_path / "scores" / "knockouts").mkdir(parents=True)
    own = [{**CELL, "layer": 0, "head": head, "score": score} for head, score in enumerate((0.0, 0.25, 0.5))]
    pd.DataFrame(own).to_parquet(tmp_path / "scores" / "knockouts" / "a.parquet")
    pd.DataFrame([rate("none", ablation="plain"), rate("top-1")]).to_parquet(tmp_path / "rates.parquet")
    return tmp_path


def test_a_run_is_compared_with_what_was_kept_of_the_same_cells(results: Path) -> None:
    kept = results / "kept"
    keep("scores", results, kept)
    assert differences("scores", results, kept) == (2 + 3 + 3 + 6 + 3, [])
    pd.DataFrame([rate("top-1", asr=0.75)]).to_parquet(results / "rates.parquet")  # fewer cells, and one is another
    compared, told = differences("scores", results, kept)
    assert compared == 1 + 15
    assert told == ["rates: m even chat undifferentiated top-1 top-1 greedy paper: asr was 0.7, is 0.75"]


def test_scores_may_differ_by_rounding_and_a_run_may_have_scores_alone(results: Path) -> None:
    kept = results / "kept"
    keep("scores", results, kept)
    (results / "rates.parquet").unlink()
    path = results / "scores" / "knockouts" / "a.parquet"
    rows = pd.read_parquet(path)
    rows.assign(score=rows["score"] * 1.0001).to_parquet(path)
    assert differences("scores", results, kept) == (15, [])
    rows.assign(score=rows["score"] * 1.01).head(2).to_parquet(path)
    assert differences("scores", results, kept) == (
        14,
        ["heads: knockouts m even chat undifferentiated 0 1: score was 0.25, is 0.2525"],
    )


def test_later_stages_go_on_from_what_is_kept(results: Path) -> None:
    """The files are those of the pipeline, at the same places, and no others."""
    kept = results / "kept"
    (results / "ships" / ".b.parquet.parts-1").mkdir()
    (results / "ships" / ".b.parquet.parts-1" / "0.npy").write_bytes(b"")
    (kept / "scores" / "ships").mkdir(parents=True)
    (kept / "scores" / "ships" / "old.parquet").write_bytes(b"")
    keep("scores", results, kept)
    for folder in ("ships", "sahara", "scores/knockouts"):
        path = Path(folder) / "a.parquet"
        assert (kept / "scores" / path).read_bytes() == (results / path).read_bytes()
    assert len([path for path in (kept / "scores").rglob("*") if path.is_file()]) == 3


def test_heads_are_those_that_each_method_names_first(results: Path) -> None:
    keep("scores", results, results / "kept")
    found = tables(results / "kept")
    assert set(found) == {"plain", "first"}, "of later stages nothing is kept yet"
    assert found["first"].splitlines()[2:] == [
        "| m | top | L00H01 3 | L00H02 1.5 | L00H00 0.75 |",
        "| m | contrast | L00H02 1.5 | L00H00 0.75 | L00H01 0 |",
        "| m | sahara | L00H01 8 | L00H02 7 |",
        "| m | knockouts | L00H02 0.5 | L00H01 0.25 | L00H00 0 |",
    ]
    assert found["plain"].splitlines()[2:] == ["| m | even | 50 | 0.50 [0.40, 0.60] | 0.70 | 0.25 | 0.12 |"]


def effect(plan: str, **values: Any) -> dict[str, Any]:
    shares = {"plain": 0.4, "ablated": 0.7, "effect": 0.3, "effect_low": 0.2, "effect_high": 0.4, "degenerate": 0.02}
    control = {"control": 0.45, "over_control": 0.25, "over_control_low": 0.1, "over_control_high": 0.4}
    return {**CELL, "plan": plan, **MEASURED, **shares, **control, "p_control": 1 / 11, "harmless_kl": None} | values


def test_groups_stand_beside_their_controls_and_what_they_do_to_harmless_questions(tmp_path: Path) -> None:
    none = dict.fromkeys(("control", "over_control", "over_control_low", "over_control_high", "p_control"))
    rows = [effect("top-10@even", dataset="odd"), effect("ships-1", **none), effect("top-1@even", effect=-0.1)]
    pd.DataFrame(rows).to_parquet(tmp_path / "effects.parquet")
    pd.DataFrame([rate("top-1@even")]).to_parquet(tmp_path / "rates.parquet")
    pd.DataFrame([{**CELL, "method": "top", "source": "even", "share": 0.5}]).to_parquet(
        tmp_path / "concentration.parquet"
    )
    kept = tmp_path / "kept"
    keep("groups", tmp_path, kept)
    assert tables(kept)["groups"].splitlines()[2:] == [
        "| m | ships-1 | even | 0.40 | 0.70 | +0.30 [+0.20, +0.40] | - | - | - | 0.02 |",
        "| m | top-1 | even | 0.40 | 0.70 | -0.10 [+0.20, +0.40] | 0.45 | +0.25 [+0.10, +0.40] | 0.09 | 0.02 |",
        "| m | top-10 | odd | 0.40 | 0.70 | +0.30 [+0.20, +0.40] | 0.45 | +0.25 [+0.10, +0.40] | 0.09 | 0.02 |",
    ]
    harmless = [effect("top-1@even", dataset=rows, harmless_kl=kl) for rows, kl in (("even", 0.1), ("odd", 0.3))]
    pd.DataFrame(harmless).to_parquet(tmp_path / "effects.parquet")
    asked = [rate("none", dataset="questions"), rate("top-1@even", dataset="questions", refused=0.5), rate("none")]
    pd.DataFrame(asked).to_parquet(tmp_path / "rates.parquet")
    keep("benign", tmp_path, kept)
    assert tables(kept)["benign"].splitlines()[2:] == [
        "| m | none | - | 0.25 | 0.12 |",
        "| m | top-1 | 0.20 | 0.50 | 0.12 |",
    ]


def test_the_page_has_the_tables_of_what_is_kept() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "<!-- table: plain -->" in page and filled(page, tables()) == page


def test_no_text_of_a_model_or_query_is_kept() -> None:
    columns = {path: set(pd.read_csv(path, nrows=1)) for path in KEPT.glob("*.csv")}
    columns |= {path: set(pd.read_parquet(path)) for path in KEPT.rglob("*.parquet")}
    assert columns
    for path, names in columns.items():
        assert not names & {"text", "query", "target", "token_ids", "reason"}, path
