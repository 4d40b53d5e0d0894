"""The refusal direction: what each head writes along it, beside a model that is written out."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from llama_by_autograd import traced
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.refusal_direction import directions, refusal_direction, separation
from safetyheads.engine.ablation import install
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

HARMFUL, BENIGN = [6, 3, 9, 6, 4], [5, 6, 8, 3]


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def score(
    model: PreTrainedModel, prompts: list[list[int]], benign: list[list[int]], folder: Path, **settings: Any
) -> pd.DataFrame:
    parts = Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet")
    given = {"layer": "own", "token_budget": 400, "parts": parts, **settings}
    return refusal_direction(model, frame(prompts), frame(benign), **given)


@pytest.mark.parametrize("layer", ["own", "best"])
@pytest.mark.parametrize("family", ["llama", "llama_gqa"])
def test_a_score_is_the_definition_on_a_model_written_out(
    family: str, layer: str, mini: Mini, sequences: Sequences, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts, benign = install(mini(family)), sequences(HARMFUL), sequences(BENIGN, seed=1)
    traces = [[traced(model, ids) for ids in kind] for kind in (prompts, benign)]
    states = [np.array([[each.numpy() for each in trace.residuals] for trace in kind]) for kind in traces]
    with caplog.at_level(logging.INFO):
        found = score(model, prompts, benign, tmp_path, layer=layer)
    chosen = list(range(3))
    if layer == "best":
        best = int(np.argmax(separation(*states)))
        assert f"layer {best} separates best" in caplog.text
        chosen = [best] * 3
    expected = []
    for at in range(3):
        way = states[0][:, chosen[at]].mean(axis=0) - states[1][:, chosen[at]].mean(axis=0)
        written = [np.mean([trace.written[at].numpy() for trace in kind], axis=0) for kind in traces]  # (N, d_model)
        expected.extend((written[0] - written[1]) @ way / np.linalg.norm(way))
    assert list(zip(found["layer"], found["head"])) == list(all_heads(3, 4))
    assert found["score"].dtype == np.float64
    np.testing.assert_allclose(found["score"], expected, rtol=1e-3, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_of_states_that_differ_in_one_layer_alone_that_layer_separates_best() -> None:
    generator = np.random.default_rng(0)
    harmful, benign = generator.normal(size=(20, 5, 8)), generator.normal(size=(30, 5, 8))
    harmful[:, 3, 2] += 6.0
    found = separation(harmful, benign)
    assert int(found.argmax()) == 3
    assert found[3] > 4
    assert np.abs(np.delete(found, 3)).max() < 2, "a direction separates the prompts that it was made from alone"
    way = directions(harmful, benign)
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 1.0)
    assert way[3, 2] > 0.9


def test_the_sign_turns_with_the_sides(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    """Means change their sign, and the direction does: the projection of one on the other stays."""
    model, prompts, benign = install(mini("llama_gqa")), sequences(HARMFUL), sequences(BENIGN, seed=1)
    np.testing.assert_allclose(
        score(model, prompts, benign, tmp_path)["score"], score(model, benign, prompts, tmp_path)["score"], atol=1e-5
    )


def test_neither_the_order_of_prompts_nor_the_token_budget_matters(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts, benign = install(mini("llama_gqa")), sequences(HARMFUL), sequences(BENIGN, seed=1)
    whole = score(model, prompts, benign, tmp_path)
    for budget in (1, 20):
        other = score(model, prompts[::-1], benign[::-1], tmp_path, token_budget=budget)
        pd.testing.assert_frame_equal(other, whole, rtol=1e-4, atol=1e-5)


def test_a_killed_job_goes_on_and_nothing_is_left_in_the_model(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, benign = install(mini("llama")).requires_grad_(True), sequences(HARMFUL), sequences(BENIGN, seed=1)
    parts = Parts(tmp_path / "a.parquet", "same")
    first = score(model, prompts, benign, tmp_path, parts=parts)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    monkeypatch.setattr(Parts, "save", None)  # all is there
    assert score(model, prompts, benign, tmp_path, parts=parts).equals(first)


def test_what_makes_no_direction_is_an_error(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama")), sequences([5, 5])
    with pytest.raises(SafetyHeadsError, match="same mean state behind layer 0"):
        score(model, prompts, prompts, tmp_path)
    with pytest.raises(SafetyHeadsError, match="Unknown layer 'last'"):
        score(model, prompts, prompts, tmp_path, layer="last")
    with pytest.raises(SafetyHeadsError, match="2 harmful and 2 benign prompts: .* at least 4 of each"):
        score(model, prompts, prompts, tmp_path, layer="best")
    with pytest.raises(SafetyHeadsError, match="at least 1 of each"):
        score(model, prompts, [], tmp_path)
