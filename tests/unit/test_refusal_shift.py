"""Refusal shift: which first tokens are refusals, and how far an ablation moves their odds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import from_queries
from safetyheads.attribution.refusal_shift import LEAST, FirstTokens, first_tokens, log_odds, shifts
from safetyheads.attribution.ships import ships
from safetyheads.demo.model import make_tokenizer
from safetyheads.engine.ablation import install
from safetyheads.heads import Ablation, Head, Kind
from safetyheads.templates import OPENINGS, opening_tokens

UA = Ablation(Kind.UNDIFFERENTIATED)
Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def of(
    model: PreTrainedModel, prompts: list[list[int]], benign: list[list[int]] | None, openings: list[int], folder: Path
) -> FirstTokens:
    others = None if benign is None else frame(benign)
    return first_tokens(model, frame(prompts), others, openings, token_budget=100, parts=Parts(folder / "a.parquet"))


def plainly(model: PreTrainedModel, prompts: list[list[int]]) -> np.ndarray:
    """The plain model's probabilities of the next token (prompts, vocabulary), one plain pass for each prompt."""
    with torch.no_grad():
        logits = [model(torch.tensor([ids])).logits[0, -1].double() for ids in prompts]
    return torch.softmax(torch.stack(logits), dim=-1).numpy()


logits_of = st.lists(st.floats(-40, 40, width=32), min_size=3, max_size=9)


@given(logits_of, st.integers(1, 2))
def test_the_log_odds_are_those_of_the_probabilities(logits: list[float], count: int) -> None:
    p = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=-1).numpy()
    expected = np.log(p[:count].sum()) - np.log(p[count:].sum())
    np.testing.assert_allclose(float(log_odds(torch.tensor(logits), range(count))), expected, rtol=1e-9, atol=1e-9)


def test_the_log_odds_are_exact_where_nearly_all_probability_is_on_one_side() -> None:
    found = float(log_odds(torch.tensor([60.0, 0.0, 1.0]), [0]))
    assert found == pytest.approx(60 - np.log(1 + np.e), abs=1e-12)
    assert float(log_odds(torch.tensor([-60.0, 0.0, 1.0]), [0])) == pytest.approx(-60 - np.log(1 + np.e), abs=1e-12)


def test_a_shift_is_below_zero_where_the_ablation_makes_refusals_less_likely() -> None:
    first = FirstTokens((0,), (2,), 1.0, 0.0, 1.0, None)
    plain, ablated = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0], [5.0, 0.0, 0.0]])
    found = shifts(plain, ablated, first)
    assert found.dtype is torch.float64
    assert (found[:, 0].sign() == torch.tensor([-1.0, 0.0, 1.0])).all()
    assert (found[:, 1].sign() == torch.tensor([1.0, 0.0, -1.0])).all()
    assert float(found[2, 0]) == pytest.approx(2.0)


def test_shifts_that_are_not_given_are_nan() -> None:
    plain, ablated = torch.zeros(3), torch.zeros(2, 3)
    assert shifts(plain, ablated, FirstTokens((0,), (1,), 0.01, 0.0, 1.0, "too low")).isnan().all()
    assert shifts(plain, ablated, FirstTokens((0,), (), 0.9, None, None, None)).isnan().all(dim=0).tolist() == [
        False,
        True,
    ]


def test_the_tokens_and_their_probabilities_are_those_of_plain_passes(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model = install(mini("llama"))
    prompts, benign = sequences([5, 7, 5, 9], seed=1), sequences([4, 6, 6], seed=2)
    p, q = plainly(model, prompts), plainly(model, benign)
    openings = sorted({3, 7, int(p.mean(axis=0).argmax())} - set(map(int, q.argmax(axis=1))))
    found = of(model, prompts, benign, openings, tmp_path)
    assert found.refusals == tuple(openings)
    assert found.answers == tuple(sorted(set(map(int, q.argmax(axis=1)))))
    ours, theirs = p[:, openings].sum(axis=1), q[:, openings].sum(axis=1)
    assert found.p_harmful == pytest.approx(ours.mean(), rel=1e-4)
    assert found.p_benign == pytest.approx(theirs.mean(), rel=1e-4)
    wins = [(a > b) + (a == b) / 2 for a in ours for b in theirs]
    assert found.auroc == pytest.approx(np.mean(wins))
    assert (found.word is None) == (ours.mean() >= LEAST)


def test_what_most_benign_prompts_are_answered_with_is_no_refusal(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model = install(mini("llama"))
    prompts, benign = sequences([5, 7], seed=1), [*sequences([4], seed=2)] * 3 + sequences([6, 6], seed=3)
    common, rare = (int(row.argmax()) for row in plainly(model, [benign[0], benign[-1]]))
    assert common != rare
    assert of(model, prompts, benign, sorted([common, rare]), tmp_path).refusals == (rare,)
    half = [benign[0], benign[-1]]  # half is not more than half
    assert of(model, prompts, half, sorted([common, rare]), tmp_path).refusals == tuple(sorted([common, rare]))
    alone = of(model, prompts, benign, [common], tmp_path)
    assert alone.refusals == ()
    assert "Most benign prompts" in str(alone.word)


def test_without_benign_prompts_all_openings_count_and_no_answers_are_known(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama")), sequences([5, 7], seed=1)
    likeliest = sorted({int(row.argmax()) for row in plainly(model, prompts)})
    found = of(model, prompts, None, likeliest, tmp_path)
    assert (found.refusals, found.answers, found.p_benign, found.auroc) == (tuple(likeliest), (), None, None)
    scores = ships(model, frame(prompts), UA, first=found, token_budget=100, parts=Parts(tmp_path / "b.parquet"))
    assert scores["refusal_shift"].notna().all()
    assert scores["answer_shift"].isna().all()


def test_a_model_that_hardly_refuses_has_no_shifts_and_a_word_says_so(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama")), sequences([5, 7], seed=1)
    rare = int(plainly(model, prompts).mean(axis=0).argmin())
    found = of(model, prompts, prompts, [rare], tmp_path)
    assert found.p_harmful is not None
    assert found.p_harmful < LEAST
    assert f"{LEAST}" in str(found.word)
    scores = ships(model, frame(prompts), UA, first=found, token_budget=100, parts=Parts(tmp_path / "b.parquet"))
    assert scores[["refusal_shift", "answer_shift"]].isna().all(axis=None)
    assert scores["score"].notna().all()


def test_the_shift_of_a_head_is_that_of_two_whole_passes(
    mini: Mini, sequences: Sequences, whole: Callable[..., Any], tmp_path: Path
) -> None:
    model, prompts, benign = install(mini("llama_gqa")), sequences([6, 3, 6], seed=4), sequences([5, 5], seed=5)
    openings = sorted({int(row.argmax()) for row in plainly(model, prompts)})
    first = of(model, prompts, None, openings, tmp_path)._replace(answers=(11, 12))
    scores = ships(model, frame(prompts), UA, first=first, token_budget=60, parts=Parts(tmp_path / "b.parquet"))
    assert len(benign) == 2
    for row in scores.sample(8, random_state=0).itertuples():
        ids = prompts[int(row.query_id[-1])]
        plain = whole(model, ids).logits[0]
        ablated = whole(model, ids, UA, (Head(row.layer, row.head),)).logits[0]
        for found, tokens in ((row.refusal_shift, openings), (row.answer_shift, (11, 12))):
            expected = float(log_odds(ablated, tokens) - log_odds(plain, tokens))
            assert found == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def demo_tokenizer() -> PreTrainedTokenizerBase:
    return make_tokenizer()


def test_openings_begin_directly_behind_the_prompt_or_behind_a_space(demo_tokenizer: PreTrainedTokenizerBase) -> None:
    found = opening_tokens(["## Query:Please help\n## Answer:"], ["I cannot", "I'm sorry"], demo_tokenizer)
    assert [demo_tokenizer.decode([id_]) for id_ in found] == ["I", " I"]


def test_a_first_token_of_white_space_alone_is_none(demo_tokenizer: PreTrainedTokenizerBase) -> None:
    ids = demo_tokenizer(" Sorry", add_special_tokens=False)["input_ids"]
    assert demo_tokenizer.decode(ids[:1]) == " "
    found = opening_tokens(["## Answer:"], ["Sorry"], demo_tokenizer)
    assert [demo_tokenizer.decode([id_]) for id_ in found] == ["S"]


def test_openings_do_not_depend_on_the_order_of_prompts_or_openings(demo_tokenizer: PreTrainedTokenizerBase) -> None:
    texts = ["tell me about lanterns", "## Answer:", "x" * 500, ""]
    one = opening_tokens(texts, OPENINGS, demo_tokenizer)
    assert one == opening_tokens(texts[::-1], OPENINGS[::-1], demo_tokenizer) == tuple(sorted(set(one)))
    assert len(one) > 3


def test_the_door_gives_signs_beside_the_score(tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    queries = ["How do I open a jar?", "What is a lantern?"]
    found = from_queries.ships(tiny_a, tokenizer, queries, benign=["Say hello."])
    assert list(found.columns) == ["query_id", "layer", "head", "score", "refusal_shift", "answer_shift"]
    without = from_queries.ships(tiny_a, tokenizer, queries)
    assert without["answer_shift"].isna().all()
    pd.testing.assert_series_equal(without["score"], found["score"], rtol=1e-6)
