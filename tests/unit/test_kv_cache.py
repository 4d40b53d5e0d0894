"""The cache with room: what the cache of transformers holds, whatever comes and goes."""

from collections.abc import Callable

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from safetyheads.engine.ablation import install
from safetyheads.engine.kv_cache import Filling, RoomyLayer
from safetyheads.engine.partial_forward import PartialForward, Shortcut
from safetyheads.engine.prefill import prefill
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_rows_come_and_go_as_in_the_layer_of_transformers(rows: int, width: int, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    keys, values = (torch.randn(rows, 2, width + 6, 3, generator=generator) for _ in range(2))
    theirs = DynamicLayer()
    theirs.update(keys[:, :, :width].clone(), values[:, :, :width].clone())
    ours = RoomyLayer(keys, values, width)
    for _ in range(6):
        new = [torch.randn(rows, 2, 1, 3, generator=generator) for _ in range(2)]
        for mine, expected in zip(ours.update(*new), theirs.update(*new)):
            assert torch.equal(mine, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        kept = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows, unique=True)))
        rows = len(kept)
        ours.batch_select_indices(kept)
        theirs.batch_select_indices(kept)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)


def test_no_step_copies_what_is_there() -> None:
    keys, values = torch.zeros(3, 2, 9, 4), torch.zeros(3, 2, 9, 4)
    layer = RoomyLayer(keys, values, 5)
    layer.update(torch.ones(3, 2, 1, 4), torch.ones(3, 2, 1, 4))
    layer.batch_select_indices(torch.tensor([0, 2]))
    assert layer.keys is not None
    assert layer.keys.data_ptr() == keys.data_ptr()


@pytest.mark.parametrize("family", ["llama_gqa", "mistral", "gemma2", "gpt2", "opt"])
def test_prompts_are_filled_in_as_if_each_row_were_run_on_its_own(
    family: str, mini: Mini, sequences: Sequences
) -> None:
    """Head sets of every layer and none, samples, and prompts that are too few to share anything."""
    passes, (long, short, single) = PartialForward(install(mini(family))), sequences([9, 4, 6])
    ablation = Ablation(Kind.SCALING)
    cases: list[tuple[list[int], HeadSet]] = [
        *((long, (Head(layer, 1),)) for layer in (2, 0, 1, 2)),
        (short, ()),
        (short, (Head(1, 0), Head(2, 2))),
        (short, ()),
        (single, (Head(0, 3),)),
    ]
    prompts, sets = [tuple(prompt) for prompt, _ in cases], [heads for _, heads in cases]
    logits, cache, _ = prefill(passes, prompts, sets, ablation, 5, [0] * len(cases))
    passes.shortcut = Shortcut.NONE
    for row, (prompt, heads) in enumerate(cases):
        alone = DynamicCache(config=passes.model.config)
        top = passes.whole(torch.tensor([prompt]), ablation, [heads], alone)
        torch.testing.assert_close(logits[row], top.logits[0], rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(cache.layers, alone.layers):
            assert ours.get_seq_length() == 9
            assert ours.keys is not None
            assert theirs.keys is not None
            seen = theirs.keys.shape[2]
            torch.testing.assert_close(ours.keys[row, :, -seen:], theirs.keys[0], rtol=1e-4, atol=1e-4)


def test_states_that_no_key_value_cache_holds_are_named() -> None:
    config = transformers.Lfm2Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, layer_types=["conv", "full_attention"]
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(SafetyHeadsError, match=r"Lfm2ForCausalLM keeps more than keys and values .*LinearAttention"):
        Filling(model, 1, 4, 2)
