"""Knockouts: balanced masks, a regression that finds what was planted, and the passes that they are made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llama_by_hand import logits_by_hand
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import knockouts as module
from safetyheads.attribution.knockouts import draw_masks, knockouts, number_of_masks, regress, selection, sizes_of
from safetyheads.attribution.refusal_margin import refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.ablation import install
from safetyheads.heads import Ablation, Head, Kind, all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

UA = Ablation(Kind.UNDIFFERENTIATED, 0.05)
FIRST = FirstTokens((3, 7, 12), (20, 31), 0.9, 0.1, 1.0)
LENGTHS = [6, 3, 9, 6]


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def score(model: PreTrainedModel, prompts: list[list[int]], folder: Path, **settings: Any) -> pd.DataFrame:
    parts = Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet")
    return knockouts(model, frame(prompts), UA, FIRST, **{"token_budget": 400, "parts": parts, **settings})


@given(st.integers(1, 60), st.integers(1, 130), st.integers(0, 2**32))
def test_every_head_is_in_equally_many_masks(heads: int, masks: int, seed: int) -> None:
    drawn = draw_masks(heads, masks, seed)
    assert drawn.ablated.shape == (masks, heads)
    assert (drawn.ablated.sum(axis=1) == drawn.sizes).all()
    assert np.ptp(drawn.ablated.sum(axis=0)) <= 1
    for size in set(drawn.sizes):
        assert np.ptp(drawn.ablated[drawn.sizes == size].sum(axis=0)) <= 1
    counts = [int((drawn.sizes == size).sum()) for size in sizes_of(heads)]
    assert max(counts) - min(counts) <= 1


def test_densities_are_those_with_three_heads_and_masks_follow_from_the_seed() -> None:
    assert sizes_of(1024) == [20, 102, 256]
    assert sizes_of(32) == [3, 8]
    assert sizes_of(12) == [3]
    assert (sizes_of(4), sizes_of(1)) == ([1], [1])
    assert [number_of_masks(heads) for heads in (4, 32, 1024)] == [100, 192, 1000]
    first, again, other = (draw_masks(32, 40, seed).ablated for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    together = draw_masks(32, 400, 0).ablated.astype(int)
    apart = (together.T @ together)[np.triu_indices(32, 1)]
    assert apart.min() > 0, "any two heads are ablated together"


def recall(masks: int, heads: int, planted: int, margin: Callable[[np.ndarray], np.ndarray], noise: float) -> float:
    """The mean share of planted heads among as many of highest score, in ten simulations."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(1000 + seed)
        drawn, chosen = draw_masks(heads, masks, seed), rng.choice(heads, planted, replace=False)
        responses = margin(drawn.ablated[:, chosen].astype(float)) + noise * rng.normal(size=masks)
        scores, _ = regress(drawn, responses, seed)
        found.append(len(set(np.argsort(-scores, kind="stable")[:planted]) & set(chosen)) / planted)
    return float(np.mean(found))


def test_a_planted_sparse_model_is_recovered_from_as_many_masks_as_theory_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Lasso needs 2 k log(N - k) + k + 1 measurements (Wainwright 2009), and fails with a fraction of them."""
    monkeypatch.setattr(module, "RESAMPLES", 1)
    heads, planted = 256, 5
    enough = int(np.ceil(2 * planted * np.log(heads - planted) + planted + 1))
    assert enough < 0.25 * heads
    assert recall(enough, heads, planted, lambda ablated: -ablated.sum(axis=1), 0.1) > 0.97
    assert recall(enough // 4, heads, planted, lambda ablated: -ablated.sum(axis=1), 0.1) < 0.5


def test_two_heads_that_stand_in_for_each_other_are_found_where_masks_are_dense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only masks with both of them move the margin: of 50 with 3 of 32 heads hardly one, of 50 with 8 three."""
    monkeypatch.setattr(module, "RESAMPLES", 1)

    def backup(ablated: np.ndarray) -> np.ndarray:
        return 5.0 - 10.0 * ablated.prod(axis=1)

    few = recall(100, 32, 2, backup, 0.5)
    assert recall(number_of_masks(32), 32, 2, backup, 0.5) > 0.95
    monkeypatch.setattr(module, "DENSITIES", (0.25,))
    assert recall(100, 32, 2, backup, 0.5) > few + 0.05


def test_the_share_of_ablated_heads_is_no_effect_of_a_head() -> None:
    drawn = draw_masks(64, 120, 0)
    scores, support = regress(drawn, -2.0 * drawn.sizes)
    assert not scores.any()
    assert not support.any()


def test_signs_and_support() -> None:
    drawn, rng = draw_masks(32, 192, 0), np.random.default_rng(0)
    responses = -3.0 * drawn.ablated[:, 4] + 2.0 * drawn.ablated[:, 9] + 0.05 * rng.normal(size=192)
    scores, support = regress(drawn, responses - drawn.sizes)
    assert scores[4] == pytest.approx(3.0, abs=0.1)
    assert scores[9] == pytest.approx(-2.0, abs=0.1)
    assert support[[4, 9]].tolist() == [1.0, 1.0]
    assert (support >= 0).all()
    assert np.delete(support, [4, 9]).mean() < 0.6
    again = regress(drawn, responses - drawn.sizes)
    assert all((ours == theirs).all() for ours, theirs in zip(again, (scores, support)))


def test_heads_are_selected_whose_effect_is_sure_and_not_tiny() -> None:
    scores, support = np.array([5.0, 0.6, 0.4, 3.0, 0.0, -4.0]), np.array([1.0, 1.0, 1.0, 0.8, 1.0, 1.0])
    assert selection(scores, support).tolist() == [True, True, False, False, False, False]
    assert not selection(-scores.clip(min=0), support).any()
    drawn, rng = draw_masks(32, 192, 0), np.random.default_rng(0)
    effects = np.zeros(32)
    effects[[4, 9, 11, 12, 13]] = -3.0, -1.0, -0.03, -0.03, -0.03
    responses = drawn.ablated @ effects + 0.01 * rng.normal(size=192)
    assert np.flatnonzero(selection(*regress(drawn, responses))).tolist() == [4, 9]
    assert (regress(drawn, responses)[0] > 0).sum() > 2, "the Lasso alone chooses more"


def test_margins_of_sets_are_those_of_each_prompt_and_set_alone(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts, margin = install(mini("llama_gqa")), sequences(LENGTHS), refusal_margin(FIRST)
    sets = [(), (Head(0, 1), Head(2, 3)), (Head(1, 0), Head(1, 1), Head(2, 2))]
    expected = [
        [float(margin(torch.tensor(logits_by_hand(model, ids, "undifferentiated", 0.05, heads)[-1]))) for heads in sets]
        for ids in prompts
    ]
    for budget in (1, 30, 10_000):
        sweep = Sweep(model, prompts, UA, budget, Parts(tmp_path / str(budget)))
        found = sweep.of_sets("sets", sets, lambda top: margin(top.logits))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_scores_are_the_regression_of_mean_margins(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts, margin = install(mini("llama_gqa")), sequences(LENGTHS), refusal_margin(FIRST)
    found, heads, drawn = score(model, prompts, tmp_path, masks=30, seed=5), all_heads(3, 4), draw_masks(12, 30, 5)
    responses = [
        np.mean(
            [
                float(margin(torch.tensor(logits_by_hand(model, ids, "undifferentiated", 0.05, chosen)[-1])))
                for ids in prompts
            ]
        )
        for chosen in ([heads[at] for at in np.flatnonzero(mask)] for mask in drawn.ablated)
    ]
    scores, support = regress(drawn, np.array(responses), 5)
    assert list(zip(found["layer"], found["head"])) == list(heads)
    np.testing.assert_allclose(found["score"], scores, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found["support"], support, atol=0.05)
    assert found["selected"].tolist() == selection(scores, support).tolist()
    assert found["score"].abs().max() > 0.01


@pytest.mark.parametrize("after", [0, 3])
def test_a_killed_job_goes_on_where_it_stopped(
    after: int, mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, saved = install(mini("llama")), sequences(LENGTHS), []
    whole = score(model, prompts, tmp_path, masks=10, token_budget=60)
    original, limit = Parts.save, after

    def counted(parts: Parts, name: str, part: np.ndarray) -> None:
        if len(saved) == limit:
            raise KeyboardInterrupt
        saved.append(name)
        original(parts, name, part)

    monkeypatch.setattr(Parts, "save", counted)
    parts = Parts(tmp_path / "a.parquet", "same")
    with pytest.raises(KeyboardInterrupt):
        score(model, prompts, tmp_path, masks=10, token_budget=60, parts=parts)
    limit = 1000
    assert score(model, prompts, tmp_path, masks=10, token_budget=60, parts=parts).equals(whole)
    assert len(saved) == len(set(saved)) > after
