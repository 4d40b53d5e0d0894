"""The refusal margin, and its first-order change under the ablation of each head."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llama_by_autograd import traced
from llama_by_hand import logits_by_hand
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.gradient import agreement, gradient
from safetyheads.attribution.refusal_margin import refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.engine.ablation import install
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Kind, all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

FIRST = FirstTokens((3, 7, 12), (7, 20, 31), 0.9, 0.1, 1.0)
LENGTHS = [6, 3, 9, 6, 4, 7]


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def score(
    model: PreTrainedModel, prompts: list[list[int]], folder: Path, kind: Kind = Kind.UNDIFFERENTIATED, **settings: Any
) -> tuple[pd.DataFrame, dict[str, Any]]:
    given = {"token_budget": 400, "parts": Parts(folder / f"{np.random.default_rng().integers(2**60)}"), **settings}
    return gradient(model, frame(prompts), Ablation(kind, 0.05), FIRST, **given)


@given(st.lists(st.floats(-40, 40, width=32), min_size=32, max_size=40))
def test_the_margin_is_that_of_the_probabilities(logits: list[float]) -> None:
    p = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=-1).numpy()
    expected = np.log(p[[3, 7, 12]].sum()) - np.log(p[[20, 31]].sum())
    found = refusal_margin(FIRST)(torch.tensor([logits, logits]))
    assert found.dtype is torch.float64
    np.testing.assert_allclose(found.numpy(), [expected] * 2, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (FirstTokens((), (5,), word="No opening has a first token of its own."), "No opening has a first token"),
        (FirstTokens((3,), ()), "give benign prompts"),
        (FirstTokens((3, 4), (4,)), "begins with the first token of a refusal, too"),
    ],
)
def test_a_margin_without_refusals_or_answers_is_an_error(first: FirstTokens, said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        refusal_margin(first)


def test_a_margin_of_first_tokens_that_hardly_tell_refusals_warns(caplog: pytest.LogCaptureFixture) -> None:
    refusal_margin(FIRST)
    assert not caplog.records
    refusal_margin(FIRST._replace(word="It hardly refuses."))
    assert caplog.messages == ["It hardly refuses. Scores by it may be about something else."]


@pytest.mark.parametrize("family", ["llama", "llama_gqa"])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_score_is_the_definition_on_a_model_written_out(
    family: str, kind: Kind, mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    """Sum over positions of (ablated - plain head output) . gradient, with the opposite sign, in float64."""
    model, prompts = install(mini(family)), sequences(LENGTHS)
    expected = np.zeros((3, 4))
    for ids in prompts:
        np.testing.assert_allclose(traced(model, ids).logits.detach(), logits_by_hand(model, ids)[-1], rtol=1e-9)
        trace = traced(model, ids, kind.value, 0.05)
        (trace.logits[[3, 7, 12]].logsumexp(0) - trace.logits[[20, 31]].logsumexp(0)).backward()
        for layer, (plain, ablated) in enumerate(zip(trace.heads, trace.ablated)):
            assert plain.grad is not None
            change = ((ablated - plain.detach()) * plain.grad).sum(dim=(1, 2))  # (N,)
            expected[layer] -= change.numpy() / len(prompts)
    table, _ = score(model, prompts, tmp_path, kind)
    assert list(zip(table["layer"], table["head"])) == list(all_heads(3, 4))
    assert table["score"].dtype == np.float64
    np.testing.assert_allclose(table["score"], expected.ravel(), rtol=1e-3, atol=1e-5)
    assert np.abs(expected).min() > 1e-4


def test_the_record_compares_with_margins_of_ablated_passes(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama_gqa")), sequences(LENGTHS)
    margin, chosen = refusal_margin(FIRST), [prompts[0], prompts[2], prompts[5]]  # 0, 2.5 and 5, evenly spaced

    def of(ids: list[int], heads: Any) -> float:
        logits = logits_by_hand(model, ids, "undifferentiated", 0.05, heads)[-1]
        return float(margin(torch.tensor(logits)))

    exact = np.array([np.mean([of(ids, ()) - of(ids, [head]) for ids in chosen]) for head in all_heads(3, 4)])
    table, record = score(model, prompts, tmp_path, sample=3)
    estimates = score(model, chosen, tmp_path, sample=0)[0]["score"].to_numpy()
    assert record["prompts"] == 3
    for k in (1, 3, 10):
        best = set(np.argsort(-exact)[:k]) & set(np.argsort(-estimates)[:k])
        assert record[f"recall_at_{k}"] == pytest.approx(len(best) / k)
    ranks = [np.argsort(np.argsort(values)) for values in (exact, estimates)]
    assert record["spearman"] == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-6)
    whole, other = score(model, prompts, tmp_path, sample=100)
    assert other["prompts"] == len(prompts)
    assert whole.equals(table)
    assert score(model, prompts, tmp_path, sample=0)[1] == {}


def test_agreement_of_the_same_is_complete_and_of_no_scores_is_not_told() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert agreement(values, values) == {
        **{f"recall_at_{k}": 1.0 for k in (1, 3, 10)},
        "spearman": pytest.approx(1.0),
    }
    assert agreement(values, -values)["recall_at_10"] == 0.0
    assert agreement(values[:10], values[:10])["recall_at_10"] is None
    assert agreement(values, np.zeros(20))["spearman"] is None


def test_neither_the_order_of_prompts_nor_the_token_budget_matters(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama_gqa")), sequences(LENGTHS)
    table, _ = score(model, prompts, tmp_path, token_budget=10_000)
    for budget in (1, 100):
        other, _ = score(model, prompts[::-1], tmp_path, token_budget=budget)
        pd.testing.assert_frame_equal(other, table, rtol=1e-4, atol=1e-6)


def test_a_killed_job_goes_on_and_weights_stay_without_gradients(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts = install(mini("llama")).requires_grad_(True), sequences(LENGTHS)
    parts = Parts(tmp_path / "a.parquet", "same")
    with caplog.at_level(logging.INFO):
        first = score(model, prompts, tmp_path, parts=parts)
    assert "recall_at_1" in caplog.text
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    monkeypatch.setattr(Parts, "save", None)  # all is there
    again = score(model, prompts, tmp_path, parts=parts)
    assert again[0].equals(first[0])
    assert again[1] == first[1]
