"""Completions as a table: who, with which heads, said what."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_generation import Mini, completed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.engine.ablation import install
from safetyheads.engine.completions import COLUMNS, complete
from safetyheads.engine.generation import Row
from safetyheads.engine.plain_rows import put_together
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, Kind
from safetyheads.plans import Decoding, assign, parse_plan
from safetyheads.prompts import build

QUERIES = {"q-1": "Where is the library?", "q-0": "Tea.", "q-2": "Please describe a quiet morning by the lake."}
DECODING = Decoding(max_new_tokens=5, top_k=3, samples=2)


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    queries = pd.DataFrame({"query_id": list(QUERIES), "query": list(QUERIES.values())})
    return build(queries, {"text": "{query}"}, tokenizer, 2048).table


def table(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: pd.DataFrame,
    folder: Path,
    plan: str,
    decoding: Decoding = DECODING,
    **settings: Any,
) -> pd.DataFrame:
    given = {
        "context_length": 2048,
        "eos_token_ids": list(range(2, 60)),
        "token_budget": 40,
        "parts": Parts(folder / f"{plan}-{settings.get('shard', 0)}.parquet", settings),
        **settings,
    }
    heads = (Head(3, 1), Head(0, 2))
    assignments = assign(parse_plan(plan), list(prompts["query_id"]), (4, 4), heads=heads)
    return complete(model, tokenizer, prompts, assignments, Ablation(Kind.SCALING), decoding, **given)


def test_there_is_one_row_for_each_query_variant_and_sample_in_order(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    rows = table(tiny_a, tokenizer, prompts, tmp_path, "single")
    assert tuple(rows.columns) == COLUMNS
    keys = list(zip(rows["query_id"], rows["variant"], rows["sample"]))
    grid = [f"L{layer:02d}H{head:02d}" for layer in range(4) for head in range(4)]
    assert keys == [(query, variant, sample) for query in sorted(QUERIES) for variant in grid for sample in (0, 1)]
    assert set(rows["finish_reason"]) == {"eos", "length"}
    for row in rows.itertuples():
        assert row.heads == [{"layer": int(row.variant[1:3]), "head": int(row.variant[4:6])}]
        assert row.n_tokens == len(row.token_ids)
        assert not set(row.token_ids) & set(range(2, 60))
        assert (row.n_tokens == 5) == (row.finish_reason == "length")
        assert row.text == tokenizer.decode(row.token_ids, skip_special_tokens=True)


def test_each_row_is_the_completion_of_its_own_prompt_heads_and_sample(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    rows = table(tiny_a, tokenizer, prompts, tmp_path, "random-2")
    ids = dict(zip(prompts["query_id"], prompts["token_ids"]))
    for row in rows.sample(6, random_state=0).itertuples():
        heads = tuple(Head(**head) for head in row.heads)
        (alone,) = completed(
            tiny_a,
            [Row(row.query_id, ids[row.query_id], heads, row.sample)],
            DECODING,
            tmp_path,
            eos=range(2, 60),
            ablation=Ablation(Kind.SCALING),
        ).values()
        assert (row.token_ids, row.finish_reason) == (alone.token_ids, alone.finish_reason)


def test_special_tokens_are_counted_but_not_in_the_text(
    mini: Mini, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    assert 0 in tokenizer.all_special_ids
    model = install(mini("llama", vocab_size=512, num_hidden_layers=4))
    model.lm_head.weight.zero_()  # always token 0
    rows = table(model, tokenizer, prompts, tmp_path, "none", Decoding(max_new_tokens=3))
    assert rows["token_ids"].tolist() == [[0, 0, 0]] * 3
    assert rows["n_tokens"].tolist() == [3] * 3
    assert rows["text"].tolist() == [""] * 3


@pytest.mark.parametrize("count", [3, 8])
def test_shards_together_are_the_whole(
    count: int, tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    whole = table(tiny_a, tokenizer, prompts, tmp_path, "mine")
    shards = [table(tiny_a, tokenizer, prompts, tmp_path, "mine", shard=shard, shards=count) for shard in range(count)]
    assert max(map(len, shards)) < len(whole)
    for number, rows in enumerate(shards):
        files.write("completions", tmp_path / f"{number}", rows, KEYS, {})
    files.write("completions", tmp_path / "whole", whole, KEYS, {})
    read = put_together([files.read(tmp_path / f"{number}") for number in range(count)])
    files.write("completions", tmp_path / "merged", read, KEYS, {})
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_shard_without_rows_is_an_empty_table_that_can_be_written(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    rows = table(tiny_a, tokenizer, prompts, tmp_path, "none", shard=49, shards=50)
    assert tuple(rows.columns) == COLUMNS
    files.write("completions", tmp_path / "empty", rows, KEYS, {})
    assert len(files.read(tmp_path / "empty")) == 0


def test_the_plain_model_has_no_heads(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    rows = table(tiny_a, tokenizer, prompts, tmp_path, "none", Decoding(max_new_tokens=3))
    assert rows["heads"].tolist() == [[], [], []]
    assert rows["variant"].unique().tolist() == ["none"]


def test_a_completion_that_exceeds_the_context_is_named_before_anything_is_computed(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    longest = prompts["token_ids"].map(len).max()
    table(tiny_a, tokenizer, prompts, tmp_path, "none", context_length=longest + 5)
    table(tiny_a, tokenizer, prompts, tmp_path, "none", context_length=None)
    message = rf"prompt of q-2 has {longest} tokens; with 5 new ones .*context of {longest + 4}\. Lower"
    with pytest.raises(SafetyHeadsError, match=message):
        table(tiny_a, tokenizer, prompts, tmp_path, "none", context_length=longest + 4)


KEYS = dict.fromkeys(("model", "dataset", "template", "ablation", "plan", "decoding"), "x")
