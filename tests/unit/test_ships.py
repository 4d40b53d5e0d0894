"""Ships: the golden numbers, and the laws of a divergence."""

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
from scipy.special import log_softmax, rel_entr, softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import install
from safetyheads.engine.divergence import divergence
from safetyheads.heads import Ablation, Kind
from safetyheads.prompts import build

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

GOLDEN = {
    ("scale_mask", "q"): Kind.UNDIFFERENTIATED,
    ("scale_mask", "k"): Kind.UNDIFFERENTIATED,
    ("scale_mask", "v"): Kind.SCALING,
    ("mean_mask", "q"): Kind.MEAN_QUERY,
    ("mean_mask", "k"): Kind.MEAN_KEY,
    ("mean_mask", "v"): Kind.MEAN_OUTPUT,
}
TEXTS = {"direct": "{query}", "template": "## Query:{query} \n## Answer:"}


def golden_prompts(golden: Path, text: str, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    queries = pd.read_csv(golden / "queries.csv")["input"]
    frame = pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(queries))], "query": queries})
    return build(frame, {"text": text}, tokenizer, 2048).table


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def score(model: PreTrainedModel, prompts: pd.DataFrame, folder: Path, **settings: Any) -> pd.DataFrame:
    budget = settings.pop("token_budget", 400)
    ablation = settings.pop("ablation", Ablation(Kind.UNDIFFERENTIATED))
    parts = settings.pop("parts", None) or Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet")
    return ships(model, prompts, ablation, token_budget=budget, parts=parts)


@pytest.mark.parametrize("template", TEXTS)
@pytest.mark.parametrize(("mask", "states"), GOLDEN)
def test_the_scores_are_the_golden_ones(
    mask: str,
    states: str,
    template: str,
    golden: Path,
    tiny_a: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    prompts = golden_prompts(golden, TEXTS[template], tokenizer)
    found = score(tiny_a, prompts, tmp_path, ablation=Ablation(GOLDEN[mask, states]), token_budget=2048)
    table = pd.read_parquet(golden / "tiny_a-ships.parquet")
    table = table[(table["mask_type"] == mask) & (table["mask_qkv"] == states) & (table["template"] == template)]
    expected = table.sort_values(["query_index", "layer", "head"], ignore_index=True)
    assert len(found) == len(expected) == 16 * 16
    assert (found["layer"] == expected["layer"]).all()
    assert (found["head"] == expected["head"]).all()
    difference = (found["score"] - expected["ships_f64"]).abs()
    assert (difference < 1e-5 + 1e-4 * expected["ships_f64"]).all()
    for start in range(0, 256, 16):
        ours, theirs = (
            np.argsort(-column[start : start + 16].to_numpy(), kind="stable")[:10]
            for column in (found["score"], expected["ships_f64"])
        )
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("family", ["llama_gqa", "qwen2", "mistral"])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_score_is_the_divergence_of_two_models_computed_by_hand(
    family: str, kind: Kind, mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini(family)), sequences([5, 8])
    found = score(model, frame(prompts), tmp_path, ablation=Ablation(kind, 0.05))
    for row in found.sample(6, random_state=1).itertuples():
        prompt = prompts[int(row.query_id[-1])]
        plain = softmax(logits_by_hand(model, prompt)[-1])
        ablated = softmax(logits_by_hand(model, prompt, kind, 0.05, [(row.layer, row.head)])[-1])
        np.testing.assert_allclose(row.score, rel_entr(plain, ablated).sum(), rtol=1e-3, atol=1e-5)


def test_rows_are_every_prompt_and_head_in_order(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    prompts = frame(sequences([6, 3, 6, 4])).iloc[[2, 0, 3, 1]]
    found = score(install(mini("llama")), prompts, tmp_path)
    assert list(found.columns) == ["layer", "head", "query_id", "score", "refusal_shift", "answer_shift"]
    assert list(found.index) == list(range(4 * 12))
    keys = list(found[["query_id", "layer", "head"]].itertuples(index=False, name=None))
    assert keys == sorted({(f"q-{q:04d}", layer, head) for q in range(4) for layer in range(3) for head in range(4)})
    assert found["score"].dtype == np.float64
    assert (found["score"] >= 0).all()
    assert found["score"].max() > 0.01


def test_neither_the_order_of_prompts_nor_the_token_budget_matters(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama_gqa")), frame(sequences([6, 3, 9, 6, 1]))
    whole = score(model, prompts, tmp_path, token_budget=10_000)
    assert whole["score"].max() > 0.1
    for budget in (1, 20, 50):
        other = score(model, prompts.iloc[::-1], tmp_path, token_budget=budget)
        pd.testing.assert_frame_equal(other, whole, rtol=1e-5, atol=1e-6)


def test_the_same_inputs_give_the_same_bits(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama_gqa")), frame(sequences([6, 3, 9, 6]))
    assert score(model, prompts, tmp_path).equals(score(model, prompts, tmp_path))


def test_of_one_layer_and_one_head(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("llama", num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1))
    found = score(model, frame(sequences([1])), tmp_path, ablation=Ablation(Kind.SCALING))
    assert len(found) == 1
    assert found["score"][0] > 0.01


def test_uniform_attention_changes_nothing_for_one_token(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    found = score(install(mini("llama")), frame(sequences([1, 1])), tmp_path)
    assert found["score"].max() < 1e-9


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on_where_it_stopped(
    after: int, mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = install(mini("llama_gqa")), frame(sequences([6, 3, 9, 6]))
    saved: list[str] = []
    original, limit = Parts.save, after

    def counted(parts: Parts, name: str, part: np.ndarray) -> None:
        if len(saved) == limit:
            raise Interrupted
        saved.append(name)
        original(parts, name, part)

    monkeypatch.setattr(Parts, "save", counted)
    parts = Parts(tmp_path / "a.parquet", "same inputs")
    with pytest.raises(Interrupted):
        score(model, prompts, tmp_path, token_budget=30, parts=parts)
    limit = 10_000
    resumed = score(model, prompts, tmp_path, token_budget=30, parts=Parts(tmp_path / "a.parquet", "same inputs"))
    made = list(saved)
    assert len(set(made)) == len(made) > after
    assert resumed.equals(score(model, prompts, tmp_path, token_budget=30))
    assert made == saved[len(made) :]
    assert score(model, prompts, tmp_path, token_budget=30, parts=parts).equals(resumed)
    assert len(saved) == 2 * len(made)


def test_parts_of_other_inputs_are_not_used(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    prompts = frame(sequences([6, 3]))
    first = score(install(mini("llama", seed=1)), prompts, tmp_path, parts=Parts(tmp_path / "a.parquet", "seed 1"))
    parts = Parts(tmp_path / "a.parquet", "seed 2")
    second = score(install(mini("llama", seed=2)), prompts, tmp_path, parts=parts)
    assert not np.allclose(first["score"], second["score"])
    assert second.equals(score(install(mini("llama", seed=2)), prompts, tmp_path))


@given(
    st.integers(2, 12).flatmap(
        lambda n: st.tuples(*[st.lists(st.floats(-60, 60, width=32), min_size=n, max_size=n)] * 2)
    )
)
def test_the_divergence_is_that_of_scipy(logits: tuple[list[float], list[float]]) -> None:
    first, second = (torch.tensor(row) for row in logits)
    found = divergence(first, second)
    log_p, log_q = (log_softmax(np.array(row, dtype=np.float64)) for row in logits)
    expected = rel_entr(np.exp(log_p), np.exp(log_q)).sum()
    assert found.dtype is torch.float64
    assert found >= 0
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)
    assert divergence(first, first) == 0
    np.testing.assert_allclose(divergence(first + 3.0, second - 7.0), found, rtol=1e-3, atol=1e-4)


def test_the_divergence_is_directed() -> None:
    sharp, flat = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.0])
    assert abs(float(divergence(sharp, flat) - np.log(3))) < 0.01
    assert divergence(flat, sharp) > 4
    assert divergence(sharp.expand(2, 4, 3), flat).shape == (2, 4)
