"""Generation: each row says what it would say alone, and draws what its own key says."""

import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.engine import generation as module
from safetyheads.engine.ablation import install
from safetyheads.engine.decoder import in_float32
from safetyheads.engine.generation import Completion, Row, best, choose, generate, gumbel
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads
from safetyheads.plans import Decoding

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]
Whole = Callable[..., Top]

UNIFORM = Ablation(Kind.UNDIFFERENTIATED)
SETS: list[HeadSet] = [(), (Head(0, 1),), (Head(1, 0), Head(2, 3)), all_heads(3, 4)]
LENGTHS = [9, 1, 5, 9, 3, 12]
FAMILIES = ["llama_gqa", "qwen2", "mistral", "gemma2", "gpt_neox", "phi", "gpt2", "opt"]


def rows_of(prompts: list[list[int]], samples: int = 1) -> list[Row]:
    return [
        Row(f"q-{number}", prompt, SETS[(number + sample) % len(SETS)], sample)
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


def completed(
    model: PreTrainedModel,
    rows: list[Row],
    decoding: Decoding,
    folder: Path,
    *,
    eos: Sequence[int] = (),
    ablation: Ablation | None = UNIFORM,
    token_budget: int = 10_000,
    **settings: Any,
) -> dict[int, Completion]:
    parts = settings.pop("parts", None) or Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet")
    return generate(
        model, rows, ablation, decoding, eos_token_ids=eos, token_budget=token_budget, parts=parts, **settings
    )


def alone(
    whole: Whole, model: PreTrainedModel, row: Row, new: int, eos: Sequence[int], ablation: Ablation
) -> Completion:
    """Greedy decoding by the definition: no batch, no padding, no cache."""
    tokens: list[int] = []
    for _ in range(new):
        top = whole(model, [*row.token_ids, *tokens], ablation, row.heads)
        token = int(top.logits.argmax())
        if token in eos:
            return Completion(tokens, "eos")
        tokens.append(token)
    return Completion(tokens, "length")


def ending_apart(completions: list[list[int]]) -> tuple[int, ...]:
    """Two tokens that, as end of sequence, end these completions at as many different steps as possible."""
    first = [{token: row.index(token) for token in row} for row in completions]
    pairs = combinations(sorted({token for row in completions for token in row}), 2)
    return max(pairs, key=lambda pair: len({min(row.get(token, 99) for token in pair) for row in first}))


def test_greedy_tokens_are_the_golden_ones(golden: Path, tiny_a: PreTrainedModel, tmp_path: Path) -> None:
    cases = json.loads((golden / "tiny_a-generation.json").read_text())
    rows = [Row(str(at), case["prompt_ids"], tuple(Head(*h) for h in case["heads"])) for at, case in enumerate(cases)]
    made = completed(tiny_a, rows, Decoding(max_new_tokens=32), tmp_path, eos=[2], token_budget=2048)
    flipped = 0
    for at, case in enumerate(cases):
        expected = case["greedy_ids"]
        ended = expected[-1] == 2
        same = made[at] == Completion(expected[:-1] if ended else expected, "eos" if ended else "length")
        assert same or case["min_top2_logit_margin"] < 1e-3, f"case {at}: no kernel may flip a token here"
        flipped += not same
    assert flipped < 0.1 * len(cases)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_cache_and_ended_rows_are_invisible(
    family: str, mini: Mini, sequences: Sequences, whole: Whole, tmp_path: Path
) -> None:
    model, ablation = install(mini(family)), Ablation(Kind.UNDIFFERENTIATED)
    rows, new = rows_of(sequences(LENGTHS), samples=2), 10
    free = [alone(whole, model, row, new, [], ablation) for row in rows]
    eos = ending_apart([completion.token_ids for completion in free])
    expected = [alone(whole, model, row, new, eos, ablation) for row in rows]
    assert len({len(completion.token_ids) for completion in expected}) > 3, "rows must end at different steps"
    assert completed(model, rows, Decoding(max_new_tokens=new), tmp_path, eos=eos) == dict(enumerate(expected))
    assert completed(model, rows, Decoding(max_new_tokens=new), tmp_path) == dict(enumerate(free))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_holds_over_a_completion(
    kind: Kind, mini: Mini, sequences: Sequences, whole: Whole, tmp_path: Path
) -> None:
    model, ablation, rows = install(mini("llama_gqa")), Ablation(kind), rows_of(sequences(LENGTHS))
    expected = [alone(whole, model, row, 8, [], ablation) for row in rows]
    assert completed(model, rows, Decoding(8), tmp_path, ablation=ablation) == dict(enumerate(expected))
    plain = [Row(row.query_id, row.token_ids, ()) for row in rows]
    assert completed(model, plain, Decoding(8), tmp_path, ablation=None) != dict(enumerate(expected))


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_the_plain_model_says_what_transformers_generates(
    family: str, mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = mini(family), sequences(LENGTHS)
    outputs = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=10,
            do_sample=False,
            eos_token_id=[7, 11, 50, 51, 52, 53],
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    rows = [Row("q", prompt, ()) for prompt in prompts]
    made = completed(install(model), rows, Decoding(10), tmp_path, ablation=None, eos=[7, 11, 50, 51, 52, 53])
    for at, output in enumerate(outputs):
        ended = output[-1] in (7, 11, 50, 51, 52, 53)
        assert made[at] == Completion(output[:-1] if ended else output, "eos" if ended else "length")


def forgets_positions(model: PreTrainedModel) -> None:
    """A model that counts padding as positions."""
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "position_ids": None}), with_kwargs=True
    )


def sees_padding(model: PreTrainedModel) -> None:
    """A model that takes padding for tokens."""
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "attention_mask": None}), with_kwargs=True
    )


@pytest.mark.parametrize(
    ("family", "change"), [("llama", sees_padding), ("mistral", sees_padding), ("qwen2", forgets_positions)]
)
def test_a_model_that_is_not_itself_in_a_padded_batch_is_refused(
    family: str, change: Callable[[PreTrainedModel], None], mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, rows = install(mini(family)), rows_of(sequences([9, 2]))
    change(model)
    with pytest.raises(
        SafetyHeadsError, match=r"ForCausalLM goes on in another way .* logits are off by .* not supported"
    ):
        completed(model, rows, Decoding(3), tmp_path)


def test_in_16_bits_it_is_a_warning(
    mini: Mini, sequences: Sequences, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, rows = install(mini("llama").to(torch.bfloat16)), rows_of(sequences([9, 2]))
    completed(model, rows, Decoding(2), tmp_path)
    assert not caplog.records
    sees_padding(model)
    completed(model, rows, Decoding(2), tmp_path)
    assert "goes on in another way" in caplog.text


def test_a_row_that_ends_at_once_is_empty(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, rows = install(mini("llama")), rows_of(sequences([4, 6]))
    made = completed(model, rows, Decoding(5), tmp_path, eos=range(97))
    assert made == {0: Completion([], "eos"), 1: Completion([], "eos")}


def test_the_end_may_be_the_last_token(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, rows = install(mini("llama")), rows_of(sequences([4]))
    (tokens,) = (made.token_ids for made in completed(model, rows, Decoding(8), tmp_path).values())
    last = next(at for at in range(1, 8) if tokens[at] not in tokens[:at])
    made = completed(model, rows, Decoding(last + 1), tmp_path, eos=[tokens[last]])
    assert made == {0: Completion(tokens[:last], "eos")}
    cut = completed(model, rows, Decoding(last), tmp_path, eos=[tokens[last]])
    assert cut == {0: Completion(tokens[:last], "length")}


def test_token_zero_is_a_token_like_others(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("llama"))
    model.lm_head.weight.zero_()  # all logits are equal, and the lowest id is best
    made = completed(model, rows_of(sequences([4, 2])), Decoding(3), tmp_path)
    assert made == {0: Completion([0, 0, 0], "length"), 1: Completion([0, 0, 0], "length")}


TOP_K = Decoding(max_new_tokens=8, top_k=5, temperature=1.3, samples=3, seed=4)


@pytest.mark.parametrize("family", ["llama_gqa", "mistral"])
def test_samples_do_not_depend_on_budget_shards_or_order(
    family: str, mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, rows = install(mini(family)), rows_of(sequences(LENGTHS), samples=3)
    settings: dict[str, Any] = {"eos": [5, 6, 7, 8, 9, 10, 11, 12]}
    whole = completed(model, rows, TOP_K, tmp_path, **settings)
    assert {"eos", "length"} == {completion.finish_reason for completion in whole.values()}
    for budget in (1, 60):
        assert completed(model, rows, TOP_K, tmp_path, token_budget=budget, **settings) == whole
    backwards = completed(model, rows[::-1], TOP_K, tmp_path, token_budget=60, **settings)
    assert {len(rows) - 1 - at: made for at, made in backwards.items()} == whole
    parts = Parts(tmp_path / "shared.parquet")
    shards = [
        completed(model, rows, TOP_K, tmp_path, token_budget=60, shard=shard, shards=4, parts=parts, **settings)
        for shard in range(4)
    ]
    assert sum(map(len, shards)) == len(rows)
    assert {at: made for shard in shards for at, made in shard.items()} == whole


def test_more_shards_than_batches_leave_some_empty(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, rows = install(mini("llama")), rows_of(sequences([4]))
    assert completed(model, rows, Decoding(2), tmp_path, shard=1, shards=2) == {}


def test_variants_of_a_prompt_share_their_noise_and_samples_do_not(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, (prompt,) = install(mini("llama")), sequences([6])
    rows = [Row("q", prompt, ()), Row("q", prompt, ()), Row("q", prompt, (), 1), Row("p", prompt, ())]
    made = completed(model, rows, Decoding(20, top_k=5), tmp_path)
    assert made[0] == made[1]
    assert made[0] != made[2]
    assert made[0] != made[3]


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_run_goes_on_where_it_stopped(
    after: int, mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = install(mini("llama")), rows_of(sequences(LENGTHS))
    made: list[Any] = []
    limit = after
    original = module.decode

    def counted(passes: Any, rows: Any, **settings: Any) -> Any:
        if len(made) == limit:
            raise Interrupted
        made.append(rows)
        return original(passes, rows, **settings)

    monkeypatch.setattr(module, "decode", counted)
    settings: dict[str, Any] = {"eos": range(20), "token_budget": 50}
    with pytest.raises(Interrupted):
        completed(model, rows, TOP_K, tmp_path, parts=Parts(tmp_path / "a.parquet", "same"), **settings)
    limit = 10_000
    parts = Parts(tmp_path / "a.parquet", "same")
    resumed = completed(model, rows, TOP_K, tmp_path, parts=parts, **settings)
    assert [row for batch in made for row in batch] == sorted(
        rows, key=lambda row: (-len(row.token_ids), row.token_ids)
    )
    assert resumed == completed(model, rows, TOP_K, tmp_path, **settings)
    count = len(made)
    assert completed(model, rows, TOP_K, tmp_path, parts=parts, **settings) == resumed
    assert len(made) == count


def test_a_vocabulary_smaller_than_k(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("llama", vocab_size=4, eos_token_id=None, pad_token_id=None))
    made = completed(model, [Row("q", [3, 2], ())], Decoding(200, top_k=9, temperature=50.0), tmp_path, ablation=None)
    assert set(made[0].token_ids) == {0, 1, 2, 3}


INTEGER_LOGITS = st.tuples(st.integers(1, 4), st.integers(1, 12)).flatmap(
    lambda shape: st.lists(
        st.lists(st.integers(-3, 3), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@given(INTEGER_LOGITS, st.data())
def test_the_best_are_ordered_by_logit_then_id(logits: list[list[int]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(logits[0])))
    found = best(torch.tensor(logits, dtype=torch.float32), k)
    ids = np.arange(len(logits[0]))
    assert found.tolist() == [np.lexsort((ids, -np.array(row)))[:k].tolist() for row in logits]


def test_the_best_of_many_equal_logits_are_the_lowest_ids() -> None:
    logits = torch.zeros(3, 40_000)
    logits[1, 39_999] = 1.0
    logits[2] = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    found = best(logits, 3)
    assert found[:2].tolist() == [[0, 1, 2], [39_999, 0, 1]]
    assert found[2].tolist() == logits[2].argsort(descending=True)[:3].tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax_over_the_k_best(temperature: float) -> None:
    decoding = Decoding(max_new_tokens=4000, top_k=4, temperature=temperature, seed=1)
    logits = torch.tensor([[0.3, 2.0, -1.0, 1.2, 1.5, -30.0, 0.9]])
    noise = torch.cat([gumbel(Row(f"q-{at}", [1], (), at % 3), decoding) for at in range(5)])
    drawn = choose(logits.expand(len(noise), -1), decoding, noise)
    kept = [1, 4, 3, 6]
    probabilities = torch.softmax(logits[0, kept].double() / temperature, dim=0).numpy()
    counts = np.array([(drawn == token).sum().item() for token in kept])
    assert counts.sum() == len(noise)
    assert chisquare(counts, probabilities * len(noise)).pvalue > 0.001


def test_greedy_takes_the_best_of_equal_ones_the_lowest() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0], [1.0, 0.0, -1.0]])
    assert choose(logits, Decoding(), torch.zeros(2, 1)).tolist() == [1, 0]


def test_noise_is_a_function_of_seed_query_and_sample_alone() -> None:
    decoding = Decoding(max_new_tokens=6, top_k=5, seed=3)
    noise = gumbel(Row("q-1", [1, 2], (), 2), decoding)
    assert noise.shape == (6, 5)
    assert noise.dtype is torch.float64
    assert torch.isfinite(noise).all()
    assert torch.equal(gumbel(Row("q-1", [9], (Head(0, 0),), 2), Decoding(6, 5, 2.0, 7, 3)), noise)
    others = [
        gumbel(Row("q-2", [1, 2], (), 2), decoding),
        gumbel(Row("q-1", [1, 2], (), 1), decoding),
        gumbel(Row("q-1", [1, 2], (), 2), Decoding(6, 5, seed=4)),
    ]
    assert not any(torch.isclose(other, noise).any() for other in others)
    longer = gumbel(Row("q-1", [1, 2], (), 2), Decoding(20, 5, seed=3))
    assert torch.equal(longer[:6], noise)


def test_every_step_of_a_row_has_noise_of_its_own(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, rows = install(mini("llama")), rows_of(sequences([4, 6, 2]))
    model.lm_head.weight.zero_()  # all logits are equal: the noise alone decides among tokens 0 to 4
    made = completed(model, rows, Decoding(12, top_k=5, seed=2), tmp_path, eos=[3])
    for at, row in enumerate(rows):
        drawn = gumbel(row, Decoding(12, top_k=5, seed=2)).argmax(dim=1).tolist()
        assert 3 in drawn
        assert made[at] == Completion(drawn[: drawn.index(3)], "eos")


def test_noise_stays_what_it_is() -> None:
    """Completions of an earlier version can be drawn again."""
    noise = gumbel(Row("advbench-0007", [1], (), 1), Decoding(max_new_tokens=2, top_k=2, seed=5))
    key = int.from_bytes(blake2b(b"5/advbench-0007/1", digest_size=16).digest(), "little")
    uniform = np.random.Generator(np.random.Philox(key=key)).random((2, 2))
    np.testing.assert_allclose(noise, -np.log(-np.log(uniform)), rtol=1e-12)


def test_a_longer_completion_begins_like_a_shorter_one(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, rows = install(mini("llama")), rows_of(sequences([6, 4]))
    short, long = (completed(model, rows, Decoding(new, top_k=5), tmp_path) for new in (5, 12))
    assert all(long[at].token_ids[:5] == short[at].token_ids for at in short)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models_complete(dtype: torch.dtype, mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    for family in ("llama_gqa", "gemma2", "opt"):
        model = install(mini(family).to(dtype))
        in_float32(model)
        made = completed(model, rows_of(sequences(LENGTHS)), Decoding(6), tmp_path, eos=range(10))
        assert len(made) == len(LENGTHS)


def test_numbers_beyond_the_dtype_are_named(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("llama").half())
    model.model.layers[1].mlp.down_proj.weight.mul_(60_000)
    with pytest.raises(SafetyHeadsError, match="not numbers"):
        completed(model, rows_of(sequences([4])), Decoding(3), tmp_path)
