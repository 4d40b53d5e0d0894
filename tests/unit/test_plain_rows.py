"""Plain rows in every batch: what they are, which row names which, and that shards make what one job makes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_generation import completed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.ships import ships
from safetyheads.engine import generation
from safetyheads.engine.ablation import ablate, install
from safetyheads.engine.batches import padded
from safetyheads.engine.completions import COLUMNS
from safetyheads.engine.divergence import divergence
from safetyheads.engine.generation import Row
from safetyheads.engine.partial_forward import Top
from safetyheads.engine.plain_rows import Answer, names, put_together
from safetyheads.heads import Ablation, Head, Kind, all_heads
from safetyheads.models.load import load
from safetyheads.plans import Decoding, parse_plan
from safetyheads.prompts import build

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]
Whole = Callable[..., Top]
Table = Callable[..., pd.DataFrame]

SAMPLED = Decoding(max_new_tokens=6, top_k=5, samples=2)


@pytest.fixture
def table(completions: Table) -> Table:
    """The completions of a plan, `single` if no other is given; with plain rows if its batches hold them."""

    def run(plan: str = "single", decoding: Decoding = SAMPLED, **settings: Any) -> pd.DataFrame:
        given = {"eos_token_ids": range(2, 30), "token_budget": 90, "paired": parse_plan(plan).paired, **settings}
        return completions(plan, decoding, **given)

    return run


def plain_rows(rows: pd.DataFrame) -> "pd.Series[bool]":
    return rows["variant"].str.startswith("plain")


def test_every_ablated_row_names_the_one_plain_answer_of_float32(table: Table, prompts: pd.DataFrame) -> None:
    rows = table()
    assert tuple(rows.columns) == COLUMNS
    plain = rows[plain_rows(rows)]
    assert sorted(zip(plain["query_id"], plain["sample"])) == [
        (query, at) for query in sorted(prompts["query_id"]) for at in (0, 1)
    ]
    assert set(plain["variant"]) == set(rows.loc[~plain_rows(rows), "paired"]) == {"plain"}
    assert plain["heads"].map(len).sum() == 0 and plain[["paired", "first_kl"]].isna().all(axis=None)
    none = table("none", ablation=None)
    said = ["query_id", "sample", "text", "token_ids", "n_tokens", "finish_reason", "plain_nll"]
    pd.testing.assert_frame_equal(plain[said].reset_index(drop=True), none[said])
    assert none[["paired", "first_kl"]].isna().all(axis=None)


def test_plans_of_one_set_have_no_plain_rows(table: Table) -> None:
    rows = table("single", paired=False)
    assert rows["paired"].isna().all() and not plain_rows(rows).any()
    assert rows["first_kl"].notna().all()


def test_first_kl_is_ships_where_one_head_is_ablated(
    table: Table, tiny_a: PreTrainedModel, prompts: pd.DataFrame, tmp_path: Path
) -> None:
    scores = ships(tiny_a, prompts, Ablation(Kind.SCALING), token_budget=500, parts=Parts(tmp_path / "ships.parquet"))
    scores["variant"] = [str(Head(layer, head)) for layer, head in zip(scores["layer"], scores["head"])]
    for paired in (True, False):
        rows = table(paired=paired)
        both = rows[~plain_rows(rows)].merge(scores, on=["query_id", "variant"])
        assert len(both) == 2 * len(scores)
        np.testing.assert_allclose(both["first_kl"], both["score"], rtol=1e-4, atol=1e-7)


def test_rows_with_one_plain_answer_share_one_object(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama_gqa")), sequences([7, 4])
    rows = [Row(f"q-{at}", prompt, (head,)) for at, prompt in enumerate(prompts) for head in all_heads(3, 4)]
    made = completed(model, rows, Decoding(3), tmp_path, ablation=Ablation(Kind.SCALING), paired=True)
    plain = [completion.plain for completion in made.values()]
    said = {(tuple(one.token_ids), one.finish_reason) for one in plain if one is not None}
    assert len(said) == 2 and len({id(one) for one in plain}) == 2


def test_first_kl_of_many_heads_is_that_of_two_whole_passes(
    mini: Mini, sequences: Sequences, whole: Whole, tmp_path: Path
) -> None:
    model, ablation, prompts = install(mini("llama_gqa")), Ablation(Kind.UNDIFFERENTIATED), sequences([7, 7, 4])
    sets = [(Head(2, 1),), (Head(0, 3), Head(2, 0)), all_heads(3, 4)]
    rows = [Row(f"q-{at}", prompt, heads) for at, prompt in enumerate(prompts) for heads in sets]
    for paired in (True, False):
        made = completed(model, rows, Decoding(2), tmp_path, ablation=ablation, paired=paired)
        for row, completion in zip(rows, made.values()):
            plain, ablated = (whole(model, row.token_ids, ablation, heads).logits[0] for heads in ((), row.heads))
            assert completion.first_kl == pytest.approx(float(divergence(plain, ablated)), rel=1e-3, abs=1e-6)


def test_likelihood_is_that_of_the_plain_model_token_by_token(
    table: Table, tiny_a: PreTrainedModel, prompts: pd.DataFrame, whole: Whole
) -> None:
    rows = table()
    ids = dict(zip(prompts["query_id"], prompts["token_ids"]))
    empty = rows["n_tokens"] == 0
    assert empty.any() and rows.loc[empty, "plain_nll"].isna().all()
    for row in rows[~empty].sample(5, random_state=0).itertuples():
        loss = 0.0
        for at, token in enumerate(row.token_ids):
            logits = whole(tiny_a, [*ids[row.query_id], *row.token_ids[:at]]).logits[0]
            loss -= float(torch.log_softmax(logits.double(), dim=-1)[token])
        assert row.plain_nll == pytest.approx(loss / row.n_tokens, rel=1e-5)
    said = rows[~empty].assign(said=rows["token_ids"].map(tuple))
    assert (said.groupby(["query_id", "said"])["plain_nll"].nunique() == 1).all(), "equal to the last bit"


def test_likelihood_is_computed_once_for_each_answer(
    table: Table, prompts: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    computed = generation.Likelihoods._computed
    monkeypatch.setattr(
        generation.Likelihoods, "_computed", lambda self, *key: (asked.append(key), computed(self, *key))[1]
    )
    rows = table()
    ids = dict(zip(prompts["query_id"], map(tuple, prompts["token_ids"])))
    different = {(ids[query], tuple(said)) for query, said in zip(rows["query_id"], rows["token_ids"]) if len(said)}
    assert len(asked) == len(different) < len(rows)
    assert set(asked) == different


@pytest.mark.parametrize("count", [2, 7])
def test_shards_put_together_are_what_one_job_makes(table: Table, count: int) -> None:
    whole = table()
    shards = [table(shard=at, shards=count) for at in range(count)]
    assert sum(plain_rows(shard).sum() for shard in shards) > plain_rows(whole).sum(), "shards share prompts"
    pd.testing.assert_frame_equal(put_together(shards), whole, check_exact=True)


def test_pieces_after_out_of_memory_hold_their_own_plain_rows(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = table(token_budget=1000)
    decode, sizes = generation.decode, []

    def little_memory(passes: Any, rows: list[Row], *args: Any, **kwargs: Any) -> np.ndarray:
        if len(rows) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        sizes.append(len(rows))
        return decode(passes, rows, *args, **kwargs)

    monkeypatch.setattr(generation, "decode", little_memory)
    found = table(token_budget=1000)
    assert len(sizes) > 10 and max(sizes) <= 5
    same = ["query_id", "variant", "sample", "token_ids", "paired"]
    pd.testing.assert_frame_equal(found[same], expected[same])


@pytest.mark.parametrize("decoding", [Decoding(max_new_tokens=24), Decoding(max_new_tokens=24, top_k=5, samples=2)])
@pytest.mark.parametrize("budget", [300, 2000])
def test_in_bfloat16_no_prompt_differs_from_its_plain_row_for_all_heads(
    table: Table, budget: int, decoding: Decoding, golden: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The ablation changes nothing, so rounding alone does: if it moved all heads together, a map would show it."""
    model = load(golden / "tiny_a", dtype="bfloat16", device="cpu")
    queries = pd.DataFrame({"query_id": [f"q-{at:02d}" for at in range(24)]})
    queries["query"] = [f"Please write {at} lines about a {'very ' * (at % 5)}quiet lake." for at in range(24)]
    prompts = build(queries, {"text": "{query}"}, tokenizer, 2048).table
    nothing = Ablation(Kind.SCALING, 1.0)
    rows = table("single", decoding, model=model, prompts=prompts, ablation=nothing, token_budget=budget)
    rows["said"] = rows["token_ids"].map(tuple)
    plain = rows.loc[plain_rows(rows), ["query_id", "sample", "variant", "said"]]
    both = rows[~plain_rows(rows)].merge(
        plain.rename(columns={"variant": "paired"}), on=["query_id", "sample", "paired"], suffixes=("", "_plain")
    )
    assert len(both) == 16 * len(queries) * decoding.samples
    differs = (both["said"] != both["said_plain"]).groupby([both["query_id"], both["sample"]]).mean()
    assert (differs < 1).all(), differs[differs == 1]


ANSWERS = st.tuples(st.lists(st.integers(0, 2), max_size=2).map(tuple), st.sampled_from(["eos", "length"]))


@given(st.lists(st.tuples(st.tuples(st.sampled_from(["q-0", "q-1"]), st.integers(0, 1)), ANSWERS)), st.randoms())
def test_the_commonest_plain_answer_is_called_plain_whatever_the_order(
    paired: list[tuple[tuple[str, int], Answer]], random: Any
) -> None:
    found = names(paired)
    assert set(found) == set(paired)
    for asked in {asked for asked, _ in paired}:
        own = {answer: name for (other, answer), name in found.items() if other == asked}
        assert sorted(own.values()) == sorted(f"plain-{at}" if at else "plain" for at in range(len(own)))
        often = [paired.count((asked, answer)) for answer, _ in sorted(own.items(), key=lambda item: item[1])]
        assert often == sorted(often, reverse=True)
    random.shuffle(paired)
    assert names(paired) == found


def test_different_plain_answers_of_shards_are_named_anew() -> None:
    """Each shard met two answers, and its first is not the other's: three in all, the commonest first."""

    def row(variant: str, said: list[int], paired: str | None, heads: int) -> dict[str, Any]:
        return {
            **{"query_id": "q-0", "variant": variant, "heads": [{"layer": 0, "head": 0}] * heads, "sample": 0},
            **{"token_ids": said, "finish_reason": "length", "paired": paired},
        }

    one = [row("L00H00", [9], "plain", 1), row("L00H01", [9], "plain-1", 1)]
    one += [row("plain", [1], None, 0), row("plain-1", [2], None, 0)]
    two = [row("L00H02", [9], "plain", 1), row("L00H03", [9], "plain", 1), row("L01H00", [9], "plain-1", 1)]
    two += [row("plain", [2], None, 0), row("plain-1", [3], None, 0)]
    found = put_together([pd.DataFrame(one), pd.DataFrame(two)]).set_index("variant")
    assert found["paired"].dropna().to_dict() == {
        **{"L00H00": "plain-1", "L00H01": "plain", "L00H02": "plain", "L00H03": "plain", "L01H00": "plain-2"}
    }
    assert found.loc[["plain", "plain-1", "plain-2"], "token_ids"].tolist() == [[2], [1], [3]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 12))
def test_batches_leave_room_for_their_plain_rows(keys: list[int], room: int) -> None:
    prompts = [[key] for key in keys]
    batches = padded(prompts, 1, 2 * room, paired=keys)
    assert sorted(index for batch in batches for index in batch) == list(range(len(keys)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) + len({keys[index] for index in batch}) <= room


def test_plain_rows_do_not_see_the_ablation(mini: Mini, sequences: Sequences) -> None:
    """A pass with plain and ablated rows side by side gives the plain row what it gets alone."""
    model, (prompt,) = install(mini("llama")), sequences([6])
    ids = torch.tensor([prompt, prompt])
    with ablate(model, Ablation(Kind.SCALING), [(), (Head(0, 0),)]):
        both = model(ids).logits
    torch.testing.assert_close(both[0], model(ids[:1]).logits[0])
    assert not torch.allclose(both[0], both[1])
