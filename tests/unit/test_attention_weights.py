"""How much heads look at the query: the weights of the family's own attention, and where the query's tokens are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.attention import attention_to_query
from safetyheads.engine.ablation import install
from safetyheads.engine.attention_weights import last_weights
from safetyheads.prompts import query_tokens

TINY = Path(__file__).parents[1] / "data" / "tiny_a"
IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [1, 1, 4, 8, 6, 2]])


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return install(AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32).eval())


def test_weights_are_those_that_the_eager_model_tells(model: PreTrainedModel) -> None:
    before = model(IDS).logits
    found = last_weights(model, IDS)
    eager = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager").eval()
    told = eager(IDS, output_attentions=True).attentions
    expected = torch.stack([layer[:, :, -1] for layer in told], dim=1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
    assert torch.equal(model(IDS).logits, before), "the model attends as before"


def test_shares_are_sums_over_the_query_s_tokens_whatever_the_batches(model: PreTrainedModel, tmp_path: Path) -> None:
    prompts = pd.DataFrame({"query_id": ["b", "a", "c"], "token_ids": [IDS[0].tolist(), IDS[1].tolist(), [4, 2, 9]]})
    places = [[1, 2], [4], [0, 1, 2]]
    whole, single = (
        attention_to_query(model, prompts, places, token_budget=budget, parts=Parts(tmp_path / str(budget)))
        for budget in (1, 1000)
    )
    pd.testing.assert_frame_equal(whole, single, atol=1e-6)
    by_query = whole.set_index("query_id")["to_query"]
    weights = last_weights(model, IDS).double()
    np.testing.assert_allclose(by_query["b"], weights[0, :, :, [1, 2]].sum(-1).flatten(), atol=1e-6)
    np.testing.assert_allclose(by_query["a"], weights[1, :, :, 4].flatten(), atol=1e-6)
    np.testing.assert_allclose(by_query["c"], 1, atol=1e-6)


WORDS = ["<s>", "##", " Query:", "how", " do", " I", " do", "?", "\n", "## Answer", ":"]


def decode(ids: Sequence[int]) -> str:
    return "".join(WORDS[at] for at in ids)


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ("how do I do?", [3, 4, 5, 6, 7]),
        ("  how  do I do?\n", [3, 4, 5, 6, 7]),
        ("do", [6]),
        ("?", [7]),
        ("Que", [2]),
        ("y:ho", [2, 3]),
    ],
)
def test_the_tokens_that_hold_the_query_are_found(query: str, places: list[int]) -> None:
    assert query_tokens(list(range(len(WORDS))), query, decode) == places


@pytest.mark.parametrize("query", ["nowhere", " ", ""])
def test_a_query_that_the_ids_do_not_hold_has_no_places(query: str) -> None:
    assert query_tokens(list(range(len(WORDS))), query, decode) == []


def test_what_tokenizers_normalise_does_not_hide_a_query() -> None:
    words = ["##", "caf", "\u00e9", " on Stra\u00dfe", "?"]
    ids = list(range(len(words)))
    for query in ("cafe\u0301 on strasse?", "CAF\u00c9  on STRASSE?"):
        assert query_tokens(ids, query, lambda some: "".join(words[at] for at in some)) == [1, 2, 3, 4]


def test_attention_to_a_query_that_is_nowhere_is_not_known(
    model: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = pd.DataFrame({"query_id": ["a", "b"], "token_ids": IDS.tolist()})
    parts = Parts(tmp_path / "a.parquet")
    by_query = attention_to_query(model, prompts, [[1], []], token_budget=100, parts=parts).groupby("query_id")
    missing = by_query["to_query"].apply(lambda shares: shares.isna().mean())
    assert missing.to_dict() == {"a": 0, "b": 1} and "(first b)" in caplog.text
