"""Rows that follow the plain row say what they would say alone, and cost nothing where they follow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.engine.ablation import install
from safetyheads.engine.generation import Completion, Row, decode, generate
from safetyheads.engine.partial_forward import PartialForward, Top
from safetyheads.engine.shared_rows import Followers
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads
from safetyheads.plans import Decoding

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]
Whole = Callable[..., Top]

LAYERS = 3


def single(prompts: list[list[int]], samples: int = 1) -> list[Row]:
    return [
        Row(f"q-{at}", prompt, (head,), sample)
        for at, prompt in enumerate(prompts)
        for head in all_heads(LAYERS, 4)
        for sample in range(samples)
    ]


@pytest.mark.parametrize("family", ["llama", "llama_gqa", "qwen2", "gpt_neox", "gpt2", "opt", "mistral"])
@pytest.mark.parametrize("paired", [True, False])
def test_followers_say_what_they_would_say_alone(
    family: str,
    paired: bool,
    mini: Mini,
    sequences: Sequences,
    whole: Whole,
    tmp_path: Path,
) -> None:
    """Heads lose a part of their output: some rows follow to the end, others leave on the way."""
    model, ablation, prompts = install(mini(family)), Ablation(Kind.SCALING, 0.8), sequences([7, 4])
    rows = single(prompts) + [Row(f"q-{at}", prompt, ()) for at, prompt in enumerate(prompts) if not paired]
    free = [alone(whole, model, row, ablation, 8) for row in rows]
    plain = {row.query_id: alone(whole, model, Row(row.query_id, row.token_ids, ()), ablation, 8) for row in rows}
    alike = {next((at for at in range(8) if said[at] != plain[row.query_id][at]), 8) for row, said in zip(rows, free)}
    assert len(alike) > 1, "rows must leave at different steps"
    for eos in ((), (free[0][5], free[15][3])):
        made = generate(
            *(model, rows, ablation, Decoding(8)),
            eos_token_ids=eos,
            token_budget=10_000,
            parts=Parts(tmp_path / f"{len(eos)}.parquet"),
            paired=paired,
        )
        assert made == {at: until(tokens, eos) for at, tokens in enumerate(free)}
        for row, completion in zip(rows, made.values()):
            assert completion.plain == (until(plain[row.query_id], eos) if paired else None)


def test_samples_follow_the_plain_row_that_draws_with_their_numbers(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, rows = install(mini("llama")), single(sequences([7, 4]), samples=2)
    decoding, eos = Decoding(8, top_k=5, temperature=2.0, samples=2), (5, 6, 7, 8, 9)
    found = []
    for paired in (True, False):
        parts = Parts(tmp_path / f"{paired}.parquet")
        settings: dict[str, Any] = {"eos_token_ids": eos, "token_budget": 10_000, "parts": parts, "paired": paired}
        found.append(generate(model, rows, Ablation(Kind.SCALING, 0.8), decoding, **settings))
    assert found[0] == found[1]
    assert {"eos", "length"} == {completion.finish_reason for completion in found[0].values()}
    plain = [Row(row.query_id, row.token_ids, (), row.sample) for row in rows]
    parts = Parts(tmp_path / "plain.parquet")
    alone = generate(model, plain, None, decoding, eos_token_ids=eos, token_budget=10_000, parts=parts)
    assert [completion.plain for completion in found[0].values()] == list(alone.values())


def test_rows_that_never_leave_cost_nothing_below_their_heads(mini: Mini, sequences: Sequences) -> None:
    """Ablation changes nothing here: layer l computes the plain rows and those with a head up to layer l."""
    model, prompts = install(mini("llama")), sequences([7, 4])
    passes, computed = PartialForward(model), [0] * LAYERS  # at one position; the last layer, in prompts, too
    for at, layer in enumerate(model.model.layers):
        layer.mlp.register_forward_hook(
            lambda _, __, output, at=at: computed.__setitem__(at, computed[at] + len(output) * (output.shape[1] == 1))
        )
    rows = [row for row in single(prompts) for _ in range(3)]  # 12 heads, three times each
    decode(passes, rows, Ablation(Kind.SCALING, 1.0), Decoding(6), (), paired=True)
    steps = 5  # the first of six tokens comes from the prompt's pass
    assert computed[:-1] == [steps * len(prompts) * (1 + 3 * 4 * (at + 1)) for at in range(LAYERS - 1)]


@given(st.integers(0, 2**32 - 1))
def test_rows_are_arranged_by_what_layers_compute(seed: int) -> None:
    """Whatever is said: leaders are plain and say the same, nobody is lost, cache rows come from the right place."""
    random = np.random.default_rng(seed)
    count, layers = int(random.integers(1, 60)), 4
    sets: list[HeadSet] = [
        tuple(Head(layer, 0) for layer in range(layers) if random.random() < 0.4) for _ in range(count)
    ]
    batch = Followers(random.integers(0, 2, count).tolist(), sets, layers)
    names = np.arange(count)  # a name for each row: its first place
    heads = {name: sets[batch.rows[name]] for name in names}
    said: dict[int, list[int]] = {name: [] for name in names}
    cache: list[list[list[int]]] = [[[]] * computed for computed in batch.computed]  # by layer: what its rows were fed
    for _ in range(12):
        assert (np.diff(batch.starts) >= 0).all()
        for row, lead in enumerate(batch.leads):
            assert said[names[row]] == said[names[lead]]
            assert batch.starts[row] == 0 or (heads[names[lead]] == () and batch.starts[lead] == 0)
            assert all(head.layer >= batch.starts[row] for head in heads[names[row]])
        for layer, computed in enumerate(batch.computed):
            assert cache[layer] == [said[name] for name in names[:computed]]
        tokens = np.where(random.random(len(names)) < 0.8, random.integers(0, 9, len(names))[batch.leads], 9)
        ended = tokens == 0
        moves = batch.go_on(tokens, ended)
        for name, token in zip(names, tokens):
            said[name] = [*said[name], int(token)]
        if moves is not None:
            going_on = set(names[~ended])
            cache = [
                [rows[at] for at in moves.sources(layer, batch.computed[layer])] for layer, rows in enumerate(cache)
            ]
            names = names[moves.order]
            assert len(set(names)) == len(names) == len(batch.rows)
            assert going_on == set(names)
        if not len(names):
            break
        cache = [[[*fed, said[name][-1]] for fed, name in zip(rows, names)] for rows in cache]


def alone(whole: Whole, model: PreTrainedModel, row: Row, ablation: Ablation, new: int) -> list[int]:
    """Greedy decoding by the definition: no batch, no padding, no cache."""
    tokens: list[int] = []
    for _ in range(new):
        tokens.append(int(whole(model, [*row.token_ids, *tokens], ablation, row.heads).logits.argmax()))
    return tokens


def until(tokens: list[int], eos: tuple[int, ...]) -> Completion:
    end = next((at for at, token in enumerate(tokens) if token in eos), None)
    return Completion(tokens, "length") if end is None else Completion(tokens[:end], "eos")
