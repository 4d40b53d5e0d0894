"""The benchmarks count what torch counts, part by part; the estimates' formulas are right within a few per cent."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from safetyheads.costs.flops import Shape, work

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
exact: Any = importlib.import_module("flops")
sys.path.pop(0)

SHAPE = Shape(layers=4, heads=4, hidden=24, intermediate=40, vocabulary=50, kv_heads=2)
LARGE = {
    "llama-2-7b": Shape(32, 32, 4096, 11008, 32000, 32),
    "grouped keys, large vocabulary": Shape(42, 16, 3584, 14336, 256000, 8, 256),
    "bench": Shape(16, 16, 1024, 2752, 8000, 16),
    "shards": Shape(4, 8, 256, 768, 512, 8),
}


def counted(run: Callable[[], object]) -> int:
    """Operations that torch counts."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.fixture
def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).eval()


def whole(layer: Any, states: torch.Tensor) -> int:
    """Operations of a layer's matrices at every position, counted by torch, and of causal attention, by hand."""
    attention, tokens = layer.self_attn, states.shape[1]
    linear = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, layer.mlp)
    return sum(counted(lambda part=part: part(states)) for part in linear) + 4 * 24 * tokens * (tokens + 1) // 2


def last(layer: Any, states: torch.Tensor) -> int:
    """The same for the last position, with keys and values at every one."""
    attention, end = layer.self_attn, states[:, -1:]
    everywhere = sum(counted(lambda part=part: part(states)) for part in (attention.k_proj, attention.v_proj))
    once = sum(counted(lambda part=part: part(end)) for part in (attention.q_proj, attention.o_proj, layer.mlp))
    return everywhere + once + 4 * 24 * states.shape[1]


@pytest.mark.parametrize("tokens", [1, 7])
def test_a_full_pass_has_the_operations_that_torch_counts(llama: LlamaForCausalLM, tokens: int) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        llama(torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    causal = attention * (tokens + 1) // (2 * tokens)  # torch counts what the mask hides
    expected = counter.get_total_flops() - attention + causal
    assert exact.full_pass(SHAPE, tokens) == expected


@pytest.mark.parametrize("tokens", [1, 7])
def test_a_plain_pass_has_the_operations_of_its_parts(llama: LlamaForCausalLM, tokens: int) -> None:
    states, layers = torch.randn(1, tokens, 24), llama.model.layers
    expected = sum(whole(layer, states) for layer in layers[:-1]) + last(layers[-1], states)
    expected += counted(lambda: llama.lm_head(states[:, -1:]))
    assert exact.plain_pass(SHAPE, tokens) == expected


@pytest.mark.parametrize("at", range(4))
def test_an_ablated_head_has_the_operations_of_its_parts(llama: LlamaForCausalLM, at: int) -> None:
    tokens, layers = 7, llama.model.layers
    states = torch.randn(1, tokens, 24)
    here, expected = layers[at], counted(lambda: llama.lm_head(states[:, -1:]))
    needed = states[:, -1:] if at == 3 else states
    visible = tokens if at == 3 else tokens * (tokens + 1) // 2
    expected += counted(lambda: here.self_attn.o_proj(needed)) + counted(lambda: here.mlp(needed))
    expected += 4 * 6 * visible  # one head of width 6
    if at < 3:
        expected += sum(whole(layer, states) for layer in layers[at + 1 : -1]) + last(layers[-1], states)
    assert exact.ablated_pass(SHAPE, tokens, at) == expected


def test_operations_and_bytes_of_a_small_case_are_those_made_by_hand() -> None:
    shape = Shape(layers=1, heads=1, hidden=2, intermediate=3, vocabulary=5, kv_heads=1)
    assert exact.plain_pass(shape, 2) == 2 * (16 + 26 + 8 + 10)
    assert exact.scoring_operations(shape, [2]) == 120 + 2 * (8 + 22 + 10)
    assert exact.decoding(shape, 2, 2) == 2 * (34 + 12 + 10)
    assert exact.generation_operations(shape, [2], [0, 0], 3) == 120 + 2 * 80 + 2 * (112 + 120)
    assert exact.scoring_bytes(shape, [2], 2, 4) == 4 * (44 + 32 + 8)
    assert exact.generation_bytes(shape, [2], 2, 3, 100, 4) == 4 * (4 * 44 + 8 + 2 * 4 * (4 + 7))


@pytest.mark.parametrize("new_tokens", [1, 2, 9])
def test_decoding_is_the_sum_of_its_steps(new_tokens: int) -> None:
    steps = [2 * (4 * (SHAPE.layer + 2 * 24 * seen) + 24 * 50) for seen in range(8, 7 + new_tokens)]
    assert exact.decoding(SHAPE, 7, new_tokens) == sum(steps)


def test_heads_may_be_wider_than_their_share_of_the_states() -> None:
    wide = Shape(layers=1, heads=2, hidden=3, intermediate=4, vocabulary=5, kv_heads=1, head_dim=7)
    assert wide.layer == 3 * 14 + 3 * 14 + 14 * 3 + 3 * 3 * 4  # query, key and value, output, MLP
    assert exact.decoding(wide, 1, 2) == 2 * (wide.layer + 2 * 14 * 2 + 15)


@pytest.mark.parametrize(("sets", "samples", "budget"), [(1024, 1, 8192), (20, 3, 8192), (5, 1, 10**6)])
def test_plain_rows_are_those_that_batches_of_whole_prompts_hold(sets: int, samples: int, budget: int) -> None:
    """Rows in the order of their prompts, cut into batches: a plain row for each prompt and sample of each batch."""
    shape, prompts, tokens, new = LARGE["bench"], 50, 20, 128
    rows = [(prompt, sample) for prompt in range(prompts) for _ in range(sets) for sample in range(samples)]
    size = budget // (tokens + new)
    held = sum(len(set(rows[at : at + size])) for at in range(0, len(rows), size))
    paired, alone = (
        work(shape, prompts, tokens, sets, samples, new, budget, 2, paired=kind).operations for kind in (True, False)
    )
    of_row = 2 * (shape.hidden * shape.vocabulary + (new - 1) * shape.weights)
    assert (paired - alone) / of_row == pytest.approx(held, rel=0.1)


def test_likelihoods_are_one_pass_over_prompt_and_answer_of_each_plain_text() -> None:
    shape, task = LARGE["bench"], (100, 20, 1024, 2, 128, 8192, 2)
    with_them, without = (work(shape, *task, likelihoods=kind) for kind in (True, False))
    assert with_them.operations - without.operations == 2 * 100 * 2 * 148 * shape.weights
    assert with_them.moved > without.moved
    assert (with_them.operations - without.operations) / without.operations < 0.01, "few beside those of `single`"


@pytest.mark.parametrize("tokens", [20, 60])
@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE)
def test_estimates_of_large_cells_are_right_within_a_few_per_cent(shape: Shape, tokens: int) -> None:
    every = list(range(shape.layers)) * shape.heads
    task = shape, 100, tokens, len(every), 1
    scoring, generation = work(*task, 1, 8192, 2), work(*task, 128, 8192, 2)
    assert scoring.operations == pytest.approx(100 * exact.scoring_operations(shape, [tokens]), rel=0.06)
    operations = exact.generation_operations(shape, [tokens] * 100, every, 128)
    assert generation.operations == pytest.approx(operations, rel=0.06)
    moved = exact.generation_bytes(shape, [tokens] * 100, len(every), 128, 8192, 2)
    assert generation.moved == pytest.approx(moved, rel=0.03)
