"""What the page says of the scores of a method: tables of heads and of steps, and how good an estimate is."""

import pandas as pd

from safetyheads.report.scores import best_heads, of_method, recall_words

HEADS = pd.DataFrame({"layer": [0, 0, 1], "head": [0, 1, 0], "score": [0.5, 2.0, -1.0]})
RECALL = {"prompts": 8, "recall_at_1": 1.0, "recall_at_10": None, "recall_at_3": 2 / 3, "spearman": 0.5}


def test_heads_stand_by_score_and_only_what_a_method_has_has_a_column() -> None:
    plain = best_heads(HEADS.assign(support=None, selected=None), "nats")
    assert [row[0] for row in plain.rows] == ["L00H01", "L00H00", "L01H00"]
    assert list(plain.columns) == ["head", "score (nats)"]
    chosen = best_heads(HEADS.assign(support=[0.25, 1.0, 0.0], selected=[False, True, False]), "nats")
    assert [row[2:] for row in chosen.rows] == [["100\u00a0%", "yes"], ["25\u00a0%", "no"], ["0\u00a0%", "no"]]


def test_recall_is_told_for_few_heads_first_and_left_out_where_it_was_not_tried() -> None:
    assert recall_words(RECALL) == (
        " Of the heads by exact change on 8 prompts it finds 100\u00a0% of the first 1, 66.7\u00a0% of the first 3 "
        "(rank correlation 0.50)."
    )
    assert "correlation" not in recall_words(RECALL | {"spearman": None})
    assert recall_words(None) == recall_words({}) == recall_words({"prompts": 0, "spearman": None}) == ""


def test_a_search_is_told_by_its_steps_and_its_unit() -> None:
    steps = pd.concat(
        [HEADS.assign(step=1, selected=[False, True, False]), HEADS.iloc[[0]].assign(step=2, selected=True)]
    )
    said = of_method("displacement", steps, {})
    assert said.summary == "Selected, with scores in spreads: L00H01 (2), L00H00 (0.5)."
    assert said.table.rows[1] == ["step 2", "L00H00", "0.5", "–", "–", "1"]
    assert of_method("gradient", HEADS.assign(support=None, selected=None), {"recall": RECALL}).summary.startswith(
        "The first-order change of refusing against answering under ablation. Highest: L00H01. Of the heads"
    )


def test_scores_by_first_tokens_that_are_hardly_refusals_are_doubted() -> None:
    heads, first = HEADS.assign(support=None, selected=None), {"word": "It hardly begins with a refusal."}
    said = of_method("gradient", heads, {"refusal": first}).summary
    assert said.endswith("It hardly begins with a refusal. These scores may be about something else.")
    for record in ({}, {"refusal": None}, {"refusal": {"word": None}}):
        assert of_method("gradient", heads, record).summary.endswith("Highest: L00H01.")
