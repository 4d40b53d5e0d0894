"""Concentration, dose curves and stability: by hand, by their laws, and on a case whose probability is known."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.chosen_heads import contrast, ships_best, top_heads
from safetyheads.heads import Head, all_heads
from safetyheads.statistics.concentration import (
    COLUMNS,
    Scores,
    concentration,
    effective_heads,
    gini,
    rank_correlation,
    top_share,
)
from safetyheads.statistics.doses import doses, enough
from safetyheads.statistics.resampling import RESAMPLES
from safetyheads.statistics.stability import COLUMNS as STABILITY
from safetyheads.statistics.stability import Choice, matrix, of_means, of_prompts, of_steps

GRID = (2, 3)
Rows = Sequence[Sequence[int]]
"""Scores: a list for each prompt, with one for each head."""
CELL = {"model": "m", "dataset": "d", "template": "t", "ablation": "ua"}
JUDGED = {"decoding": "greedy", "judge": "paper"}
POSITIVE = st.lists(st.integers(0, 50).map(float), min_size=2, max_size=30).filter(lambda values: sum(values) > 0)


def ships_of(scores: Sequence[Sequence[float]], dataset: str = "d", model: str = "m", **more: Any) -> pd.DataFrame:
    rows = [
        {**CELL, "dataset": dataset, "model": model, "query_id": f"q-{number}", **head._asdict(), "score": score}
        for number, values in enumerate(scores)
        for head, score in zip(all_heads(*GRID), values)
    ]
    return pd.DataFrame(rows).assign(**more)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([3, 3, 3, 3], 0), ([0, 0, 0, 7], 3 / 4), ([1, 2, 3], 2 / 9), ([0, 1], 1 / 2), ([5], 0)],
)
def test_gini_by_hand(scores: list[float], expected: float) -> None:
    assert gini(scores) == pytest.approx(expected)
    pairs = np.abs(np.subtract.outer(scores, scores)).mean()
    assert gini(scores) == pytest.approx(pairs / (2 * np.mean(scores)))


def test_effective_heads_and_the_top_share_by_hand() -> None:
    assert effective_heads([2, 2, 0, 0]) == 2
    assert effective_heads([1, 1, 1]) == pytest.approx(3)
    assert effective_heads([0, 9, 0]) == 1
    assert top_share([1, 2, 7]) == 0.7  # of three heads, at least one
    assert top_share([1.0] * 199 + [101.0]) == pytest.approx(102 / 300)  # 1 % of 200 heads are two


@given(POSITIVE, st.integers(1, 9))
def test_concentration_has_no_unit_and_no_order(scores: list[float], factor: int) -> None:
    for of in (gini, top_share, effective_heads):
        assert of(scores) == pytest.approx(of(sorted(scores)))
        assert of([factor * score for score in scores]) == pytest.approx(of(scores))
    assert 0 <= gini(scores) <= (len(scores) - 1) / len(scores) + 1e-9
    assert 1 - 1e-9 <= effective_heads(scores) <= len(scores) + 1e-9
    assert 1 / len(scores) - 1e-9 <= top_share(scores) <= 1


def test_of_scores_that_are_all_zero_nothing_is_known() -> None:
    assert np.isnan([gini([0, 0]), top_share([0, 0]), effective_heads([0, 0])]).all()


def test_a_head_that_leads_for_every_prompt_is_always_chosen() -> None:
    scores = matrix(ships_of([[9, 1, 0, 0, 0, 0], [9, 0, 1, 0, 0, 0]]))
    found = of_means(scores, [1, 2])
    assert found.query("n == 1").to_dict("records") == [{"layer": 0, "head": 0, "n": 1, "share": 1.0, "chosen": True}]
    two = found.query("n == 2").set_index(["layer", "head"])["share"]
    # Both prompts are drawn, or one of them twice: the second head is that of the one that was drawn more often, and of
    # both the first one. So it is L00H01 with probability 3/4.
    assert two[0, 0] == 1
    assert two[0, 1] == pytest.approx(3 / 4, abs=0.03)
    assert two[0, 2] == pytest.approx(1 / 4, abs=0.03)
    assert found.groupby("n")["share"].sum().tolist() == [pytest.approx(1), pytest.approx(2)]


@given(st.lists(st.lists(st.integers(0, 3).map(float), min_size=6, max_size=6), min_size=1, max_size=5))
def test_what_all_prompts_choose_are_the_heads_of_the_plans(scores: list[list[float]]) -> None:
    table = ships_of(scores)
    less = ships_of(scores[:1] + scores)
    for n in (1, 2, 4):
        own, subtracted = matrix(table), matrix(less)
        for found, heads in (
            (of_means(own, [n]), top_heads(table, n)),
            (of_means(own, [n], subtracted), top_heads(contrast(table, less), n)),
        ):
            chosen = found[found["chosen"]]
            assert tuple(map(Head, chosen["layer"], chosen["head"])) == heads
            if len(scores) > 1:
                assert found["share"].sum() == pytest.approx(n)
        of_own = of_prompts(own, [n])
        best = ships_best(table, n)
        for row in of_own.itertuples():
            holding = [Head(row.layer, row.head) in heads for heads in best.values()]
            assert row.share == pytest.approx(np.mean(holding))
        assert len(of_own) == len({head for heads in best.values() for head in heads})


def shares_of_all_resamples(scores: Rows, less: Rows | None, n: int, *, same_prompts: bool) -> dict[Head, float]:
    """How likely each head is among the n best, from every resample there is, without rounding."""
    counts = dict.fromkeys(all_heads(*GRID), 0)
    apart = product(range(len(less)), repeat=len(less)) if less and not same_prompts else [None]
    drawn = list(product(product(range(len(scores)), repeat=len(scores)), apart))
    for own, others in drawn:
        means = {}
        for at, head in enumerate(counts):
            means[head] = Fraction(sum(scores[prompt][at] for prompt in own), len(own))
            if less:
                of_less = own if others is None else others
                means[head] -= Fraction(sum(less[prompt][at] for prompt in of_less), len(of_less))
        for head in sorted(means, key=lambda head: (-means[head], head))[:n]:
            counts[head] += 1
    return {head: count / len(drawn) for head, count in counts.items()}


@pytest.mark.parametrize("subtracted", ["nothing", "other prompts", "the same prompts"])
@pytest.mark.parametrize("case", range(8))
def test_shares_are_those_of_all_resamples_there_are(subtracted: str, case: int) -> None:
    """Whole numbers tie often, also between heads whose two means differ, such as 1 - 2/3 and 1/2 - 1/6."""
    generator, same = np.random.default_rng(case), subtracted == "the same prompts"
    scores: Rows = generator.integers(0, 4, (2 + case % 3, 6)).tolist()
    less: Rows | None = None
    if subtracted != "nothing":
        less = generator.integers(0, 4, (len(scores) if same else 3 - case % 2, 6)).tolist()
    n = 1 + case % 4
    subtract = None if less is None else matrix(ships_of(less))
    found = of_means(matrix(ships_of(scores)), [n], subtract, same_prompts=same)
    share = dict(zip(map(Head, found["layer"], found["head"]), found["share"]))
    for head, expected in shares_of_all_resamples(scores, less, n, same_prompts=same).items():
        error = (expected * (1 - expected) / RESAMPLES) ** 0.5
        assert share.get(head, 0) == pytest.approx(expected, abs=4.5 * error + 1e-12)


@pytest.mark.parametrize("prompts", [2, 7, 64])
def test_heads_with_equal_scores_tie_in_every_resample_and_the_first_is_chosen(prompts: int) -> None:
    generator = np.random.default_rng(prompts)
    scores = generator.random((prompts, len(all_heads(*GRID))))
    scores[:, 1] = scores[:, 4] = scores[:, 5] = 1 + generator.random(prompts)
    found = of_means(matrix(ships_of(scores.tolist())), [1, 2])
    assert list(zip(found["n"], found["layer"], found["head"], found["share"])) == [
        *[(1, 0, 1, 1.0)],
        *[(2, 0, 1, 1.0), (2, 1, 1, 1.0)],
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_chosen_heads_are_those_of_the_plan_where_means_differ_by_rounding_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.random(9)
    table = ships_of(np.stack([generator.permutation(values) for _ in all_heads(*GRID)], axis=1).tolist())
    found = of_means(matrix(table), [2])
    chosen = found[found["chosen"]]
    assert tuple(map(Head, chosen["layer"], chosen["head"])) == top_heads(table, 2)


def test_the_unit_of_scores_does_not_matter() -> None:
    scores = np.random.default_rng(1).random((12, 6))
    shares = [of_means(matrix(ships_of((scores * unit).tolist())), [2])["share"].tolist() for unit in (1, 2**-30, 2**9)]
    assert shares[0] == shares[1] == shares[2]
    nothing = of_means(matrix(ships_of(np.zeros((3, 6)).tolist())), [1])
    assert nothing[["layer", "head", "share"]].to_numpy().tolist() == [[0, 0, 1]]


def test_prompts_of_two_models_are_drawn_together_and_those_of_two_data_sets_apart() -> None:
    noisy = [[float(number), 1.0, 0, 0, 0, 0] for number in range(8)]
    same = matrix(ships_of(noisy))
    moved = same.copy()
    moved[0, 0] -= 0.5  # always half a nat below, whatever the prompt
    together = of_means(same, [1], moved, same_prompts=True)
    apart = of_means(same, [1], moved)
    assert together["share"].tolist() == [1.0]
    assert apart["share"].max() < 1


def test_a_single_prompt_cannot_be_resampled() -> None:
    one, two = matrix(ships_of([[6, 5, 4, 3, 2, 1]])), matrix(ships_of([[6, 5, 4, 3, 2, 1]] * 2))
    for found in (of_means(one, [2]), of_means(two, [2], one)):
        assert found["chosen"].all() and found["share"].isna().all()
    assert (of_means(two, [2])["share"] == 1).all()


def test_resampling_is_always_the_same() -> None:
    scores = matrix(ships_of(np.random.default_rng(0).random((9, 6)).tolist()))
    pd.testing.assert_frame_equal(of_means(scores, [1, 3]), of_means(scores.iloc[::-1].sort_index(), [1, 3]))


def test_the_margin_of_a_step_is_to_the_best_of_the_others() -> None:
    steps = [(1, 0, 0, 9.0, True), (1, 0, 1, 4.0, False), (1, 1, 0, 8.5, False), (2, 0, 1, 12.0, True)]
    sahara = pd.DataFrame(steps, columns=["step", "layer", "head", "score", "selected"])
    found = of_steps(sahara)
    assert found["n"].tolist() == [1, 2]
    assert found["margin"].iloc[0] == pytest.approx(0.5)
    assert np.isnan(found["margin"].iloc[1])


def rate(plan: str, coherent: float, asr: float | None = None, variant: str | None = None) -> dict[str, Any]:
    row = {**CELL, **JUDGED, "plan": plan, "variant": variant or plan, "asr": coherent if asr is None else asr}
    row |= {"coherent_asr": coherent, "degenerate": (asr or coherent) - coherent, "refused": 1 - (asr or coherent)}
    return row | ({"ablation": "plain"} if plan == "none" else {})


RATES = pd.DataFrame(
    [
        rate("none", 0.1),
        rate("top-1", 0.3, 0.6),
        rate("top-3", 0.7, 0.9),
        rate("top-5", 0.2, 1.0),
        rate("top-2@other", 0.4),
        rate("matched-top-3", 0.2, variant="draw-0"),
        rate("matched-top-3", 0.4, variant="draw-1"),
        rate("single", 0.9, variant="L00H00"),
        rate("random-3", 0.9, variant="draw-0"),
        rate("mine", 0.9),
    ]
)


def test_dose_curves_begin_with_the_plain_model_and_have_the_control_beside_them() -> None:
    found = doses(RATES)
    assert found[["method", "source", "n_heads"]].to_numpy().tolist() == [
        *[["top", "d", n] for n in (0, 1, 3, 5)],
        *[["top", "other", n] for n in (0, 2)],
    ]
    own = found[found["source"] == "d"]
    assert own["coherent_asr"].tolist() == [0.1, 0.3, 0.7, 0.2]
    assert own["asr"].tolist() == [0.1, 0.6, 0.9, 1.0]
    assert own["control"].tolist()[2] == pytest.approx(0.3)
    assert own["control"].isna().tolist() == [True, True, False, True]
    assert (enough(own, "asr"), enough(own, "coherent_asr")) == (1, 3)
    other = found[found["source"] == "other"]
    assert enough(other, "asr") is None
    assert enough(other.assign(asr=0.5), "asr") == 0


def study(**changes: Any) -> tuple[Scores, pd.DataFrame]:
    """Scores of two data sets, and the map of a study in which the best heads do most and L01H02 the opposite."""
    shifts = [-3.0, -2.0, -1.0, 0.0, 0.1, 0.5]
    ships = ships_of([[6, 5, 4, 3, 2, 1]] * 3, refusal_shift=shifts * 3, answer_shift=np.nan)
    ships = pd.concat([ships, ships_of([[6, 5, 4, 3, 2, 1]], "other", refusal_shift=np.nan)])
    ships = pd.concat([ships, ships_of([[6, 0, 0, 0, 9, 0]], "benign", refusal_shift=np.nan)])
    choices = [Choice(*CELL.values(), "top", n) for n in (1, 3, 5)]
    choices += [Choice("m", "other", "t", "ua", "top", 2)]
    first = {("m", "d", "t", "ua"): {"p_harmful": 0.9, "p_benign": 0.1, "auroc": 0.8}}
    scores = Scores({"ships": ships}, changes.get("choices", choices), first)
    effects = [0.6, 0.5, 0.4, 0.3, 0.2, -0.1]
    by_head = pd.DataFrame([{**CELL, **JUDGED, "plan": "single", **head._asdict()} for head in all_heads(*GRID)])
    return scores, by_head.assign(effect=effects, effect_asr=effects[::-1])


def test_a_study_is_what_is_computed_by_hand() -> None:
    scores, by_head = study()
    found = concentration(scores, RATES, by_head)
    assert list(found) == COLUMNS
    own, other = found.to_dict("records")
    assert (own["source"], other["source"]) == ("d", "other")
    assert own["gini"] == pytest.approx(gini([6, 5, 4, 3, 2, 1]))
    assert (own["largest"], own["heads_asr"], own["heads_coherent"]) == (5, 1, 3)
    assert own["score_correlation"] == pytest.approx(1) and own["score_correlation_asr"] == pytest.approx(-1)
    assert own["refusal_shift_correlation"] == pytest.approx(-1)
    assert np.isnan(own["answer_shift_correlation"])
    assert own["n_heads"] == 6 and own["highest_correlation"] == pytest.approx(1)
    assert (own["p_refusal"], own["p_refusal_benign"], own["refusal_auroc"]) == (0.9, 0.1, 0.8)
    assert pd.isna(other["heads_asr"]) and other["largest"] == 2 and np.isnan(other["p_refusal"])
    stable = scores.stability()
    assert list(stable) == STABILITY
    assert (stable.query("dataset == 'd'")["share"] == 1).all() and stable["chosen"].all()
    assert stable.query("dataset == 'other'")["share"].isna().all()  # there is one prompt
    assert stable.groupby(["dataset", "n"]).size().to_dict() == {("d", 1): 1, ("d", 3): 3, ("d", 5): 5, ("other", 2): 2}


def test_without_a_map_there_are_no_correlations() -> None:
    found = concentration(study()[0], RATES, pd.DataFrame())
    assert found.filter(like="correlation").isna().all(axis=None) and found["gini"].notna().all()


def test_a_contrast_goes_by_what_is_above_zero() -> None:
    choices = [Choice("m", "d", "t", "ua", "contrast", n, "m", "benign") for n in (1, 2)]
    scores, by_head = study(choices=choices)
    rates = pd.DataFrame([rate("none", 0.0), rate("contrast-1", 0.4), rate("contrast-2", 0.8)])
    (row,) = concentration(scores, rates, by_head).to_dict("records")
    assert row["gini"] == pytest.approx(gini([0, 5, 4, 3, 0, 1]))
    assert row["effective_heads"] == pytest.approx(13**2 / (25 + 16 + 9 + 1))
    stable = scores.stability().query("n == 2 and chosen")
    assert list(zip(stable["layer"], stable["head"])) == [(0, 1), (0, 2)]


def test_where_few_heads_do_anything_the_best_ranking_is_far_from_1() -> None:
    scores, by_head = study()
    few = by_head.assign(effect=[0.5, 0.5, 0, 0, 0, 0], effect_asr=[0.5, 0, 0, 0, 0, 0.0])
    own = concentration(scores, RATES, few).iloc[0]
    # Ranks 5.5, 5.5 and four times 2.5 beside 6, 5, ..., 1: as the scores are in that order, no ranking does better.
    expected = np.corrcoef([5.5, 5.5, 2.5, 2.5, 2.5, 2.5], [6, 5, 4, 3, 2, 1])[0, 1]
    assert own["score_correlation"] == pytest.approx(expected) == pytest.approx(own["highest_correlation"])
    assert own["highest_correlation_asr"] == pytest.approx(np.corrcoef([6, 3, 3, 3, 3, 3], [6, 5, 4, 3, 2, 1])[0, 1])


@pytest.mark.parametrize("other", [[1.0, 1.0, 1.0], [1.0, np.nan, 2.0]])
def test_there_is_no_rank_correlation_with_what_is_constant_or_missing(other: list[float]) -> None:
    assert np.isnan(rank_correlation(pd.Series([1.0, 2.0, 3.0]), pd.Series(other)))
    assert rank_correlation(pd.Series([1.0, 2.0, 3.0]), pd.Series([2.0, 4.0, 99.0])) == pytest.approx(1)
