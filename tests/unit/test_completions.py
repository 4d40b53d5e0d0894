"""Completions as a table: who, with which heads, said what."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_generation import Mini, completed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts import files
from safetyheads.engine.ablation import install
from safetyheads.engine.completions import COLUMNS
from safetyheads.engine.generation import Row
from safetyheads.engine.plain_rows import put_together
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, Kind
from safetyheads.plans import Decoding

Table = Callable[..., pd.DataFrame]

DECODING = Decoding(max_new_tokens=5, top_k=3, samples=2)


@pytest.fixture
def table(completions: Table) -> Table:
    """The completions of a plan: `table("single")`. The head set `mine` has two heads."""
    heads = (Head(3, 1), Head(0, 2))

    def run(plan: str, decoding: Decoding = DECODING, **settings: Any) -> pd.DataFrame:
        given = {"eos_token_ids": list(range(2, 60)), "token_budget": 40, **settings}
        return completions(plan, decoding, heads=heads, **given)

    return run


def test_there_is_one_row_for_each_query_variant_and_sample_in_order(
    table: Table, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame
) -> None:
    rows = table("single")
    assert tuple(rows.columns) == COLUMNS
    keys = list(zip(rows["query_id"], rows["variant"], rows["sample"]))
    grid = [f"L{layer:02d}H{head:02d}" for layer in range(4) for head in range(4)]
    assert keys == [
        (query, variant, sample) for query in sorted(prompts["query_id"]) for variant in grid for sample in (0, 1)
    ]
    assert set(rows["finish_reason"]) == {"eos", "length"}
    for row in rows.itertuples():
        assert row.heads == [{"layer": int(row.variant[1:3]), "head": int(row.variant[4:6])}]
        assert row.n_tokens == len(row.token_ids)
        assert not set(row.token_ids) & set(range(2, 60))
        assert (row.n_tokens == 5) == (row.finish_reason == "length")
        assert row.text == tokenizer.decode(row.token_ids, skip_special_tokens=True)


def test_each_row_is_the_completion_of_its_own_prompt_heads_and_sample(
    table: Table, tiny_a: PreTrainedModel, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    rows = table("random-2")
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
    table: Table, mini: Mini, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert 0 in tokenizer.all_special_ids
    model = install(mini("llama", vocab_size=512, num_hidden_layers=4))
    model.lm_head.weight.zero_()  # always token 0
    rows = table("none", Decoding(max_new_tokens=3), model=model)
    assert rows["token_ids"].tolist() == [[0, 0, 0]] * 3
    assert rows["n_tokens"].tolist() == [3] * 3
    assert rows["text"].tolist() == [""] * 3


@pytest.mark.parametrize("count", [3, 8])
def test_shards_together_are_the_whole(table: Table, count: int, tmp_path: Path) -> None:
    whole = table("mine")
    shards = [table("mine", shard=shard, shards=count) for shard in range(count)]
    assert max(map(len, shards)) < len(whole)
    for number, rows in enumerate(shards):
        files.write("completions", tmp_path / f"{number}", rows, KEYS, {})
    files.write("completions", tmp_path / "whole", whole, KEYS, {})
    read = put_together([files.read(tmp_path / f"{number}") for number in range(count)])
    files.write("completions", tmp_path / "merged", read, KEYS, {})
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_shard_without_rows_is_an_empty_table_that_can_be_written(table: Table, tmp_path: Path) -> None:
    rows = table("none", shard=49, shards=50)
    assert tuple(rows.columns) == COLUMNS
    files.write("completions", tmp_path / "empty", rows, KEYS, {})
    assert len(files.read(tmp_path / "empty")) == 0


def test_the_plain_model_has_no_heads(table: Table) -> None:
    rows = table("none", Decoding(max_new_tokens=3))
    assert rows["heads"].tolist() == [[], [], []]
    assert rows["variant"].unique().tolist() == ["none"]


def test_a_completion_that_exceeds_the_context_is_named_before_anything_is_computed(
    table: Table, prompts: pd.DataFrame
) -> None:
    longest = prompts["token_ids"].map(len).max()
    table("none", context_length=longest + 5)
    table("none", context_length=None)
    message = rf"prompt of q-2 has {longest} tokens; with 5 new ones .*context of {longest + 4}\. Lower"
    with pytest.raises(SafetyHeadsError, match=message):
        table("none", context_length=longest + 4)


KEYS = dict.fromkeys(("model", "dataset", "template", "ablation", "plan", "decoding"), "x")
