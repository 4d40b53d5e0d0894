"""Ablation: every kind is what the paper defines, on the rows and heads that were named, and nowhere else."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from llama_by_hand import logits_by_hand
from torch import Tensor
from transformers import FalconConfig, FalconForCausalLM, PreTrainedModel

from safetyheads.engine.ablation import ablate, install
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

BY_HAND = ["llama", "llama_gqa", "qwen2", "mistral"]
FAMILIES = [*BY_HAND, "gemma2", "gpt_neox", "phi", "gpt2", "opt"]
SETS: list[HeadSet] = [
    (),
    (Head(0, 1),),
    (Head(2, 3),),
    (Head(1, 0), Head(1, 2)),
    (Head(0, 3), Head(1, 1), Head(2, 0), Head(2, 2)),
    all_heads(3, 4),
]


def logits(
    model: PreTrainedModel, rows: list[list[int]], ablation: Ablation | None = None, sets: list[HeadSet] | None = None
) -> Tensor:
    with torch.inference_mode(), ablate(model, ablation, sets or [()] * len(rows)):
        return model(torch.tensor(rows), use_cache=False).logits


def close(actual: Tensor, expected: Tensor | np.ndarray) -> None:
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_heads_the_model_is_bit_identical_to_the_one_not_installed(
    family: str, mini: Mini, sequences: Sequences
) -> None:
    rows = sequences([9, 9, 9])
    with torch.inference_mode():
        plain = mini(family)(torch.tensor(rows), use_cache=False).logits
        model = install(mini(family))
        outside = model(torch.tensor(rows), use_cache=False).logits
    assert torch.equal(outside, plain)
    for kind in Kind:
        assert torch.equal(logits(model, rows, Ablation(kind)), plain)
    assert torch.equal(logits(model, rows, None), plain)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("family", BY_HAND)
def test_every_kind_equals_a_computation_by_hand(family: str, kind: Kind, mini: Mini, sequences: Sequences) -> None:
    model, epsilon = install(mini(family)), 0.05
    rows = sequences([11] * len(SETS))
    actual = logits(model, rows, Ablation(kind, epsilon), SETS)
    for row, heads, found in zip(rows, SETS, actual):
        close(found, logits_by_hand(model, row, kind, epsilon, heads))
        if heads:
            assert np.abs(found.numpy() - logits_by_hand(model, row)).max() > 0.05, "this head does not matter"


@pytest.mark.parametrize("family", BY_HAND)
def test_scaling_the_queries_is_scaling_the_keys(family: str, mini: Mini, sequences: Sequences) -> None:
    model = install(mini(family))
    (row,) = sequences([10])
    for heads in SETS[1:]:
        actual = logits(model, [row], Ablation(Kind.UNDIFFERENTIATED, 0.05), [heads])[0]
        close(actual, logits_by_hand(model, row, "key_scaling", 0.05, heads))


@pytest.mark.parametrize(("family", "window"), [("llama_gqa", 99), ("mistral", 4)])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-10])
def test_undifferentiated_attention_is_uniform_over_the_visible_positions(
    family: str, window: int, epsilon: float, mini: Mini, sequences: Sequences
) -> None:
    model = install(mini(family, num_hidden_layers=1))
    attention = model.model.layers[0].self_attn
    seen: dict[str, Tensor] = {}
    attention.v_proj.register_forward_hook(lambda _, __, output: seen.update(value=output[0].view(10, 2, 8)))
    attention.o_proj.register_forward_pre_hook(lambda _, inputs: seen.update(output=inputs[0][0].view(10, 4, 8)))
    logits(model, sequences([10]), Ablation(Kind.UNDIFFERENTIATED, epsilon), [(Head(0, 3),)])
    distance = torch.arange(10)[:, None] - torch.arange(10)[None, :]
    visible = (distance >= 0) & (distance < window)
    uniform = visible / visible.sum(dim=1, keepdim=True)
    torch.testing.assert_close(seen["output"][:, 3], uniform @ seen["value"][:, 1], rtol=1e-3, atol=1e-3)


OWN_KEYS = ["llama", "gemma2", "opt"]
"""Where each query head has a key head of its own."""


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (family, kind)
        for family in [*OWN_KEYS, "llama_gqa", "qwen2", "mistral"]
        for kind in Kind
        if family in OWN_KEYS or kind is not Kind.MEAN_KEY
    ],
)
def test_ablating_a_head_equals_changing_its_weights(family: str, kind: Kind, mini: Mini, sequences: Sequences) -> None:
    """Where a head has weights of its own, its ablation is a linear change of them."""
    model, epsilon, head = install(mini(family)), 0.05, Head(1, 2)
    rows = sequences([9, 9])
    actual = logits(model, rows, Ablation(kind, epsilon), [(head,), (head,)])
    changed = mini(family)
    layers = changed.model.decoder.layers if family == "opt" else changed.model.layers
    attention = layers[head.layer].self_attn
    name = {Kind.UNDIFFERENTIATED: "q_proj", Kind.MEAN_QUERY: "q_proj", Kind.MEAN_KEY: "k_proj"}.get(kind)
    with torch.no_grad():
        if name is not None:
            projection = getattr(attention, name)
            for states in (projection.weight, projection.bias):
                if states is not None:
                    per_head = states.view(4, -1, *states.shape[1:])
                    replaced = per_head[head.head] * epsilon if kind is Kind.UNDIFFERENTIATED else per_head.mean(dim=0)
                    per_head[head.head] = replaced
        else:
            output = attention.out_proj if family == "opt" else attention.o_proj
            per_head = output.weight.view(len(output.weight), 4, -1)
            if kind is Kind.SCALING:
                per_head[:, head.head] *= epsilon
            else:
                share = per_head[:, head.head].clone() / 4
                per_head[:, head.head] = 0.0
                per_head += share[:, None]
        expected = changed(torch.tensor(rows), use_cache=False).logits
        untouched = mini(family)(torch.tensor(rows), use_cache=False).logits
    close(actual, expected)
    assert (expected - untouched).abs().max() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", list(Kind))
def test_rows_do_not_leak(family: str, kind: Kind, mini: Mini, sequences: Sequences) -> None:
    model = install(mini(family))
    rows = sequences([8] * len(SETS))
    together = logits(model, rows, Ablation(kind), SETS)
    for row, heads, found in zip(rows, SETS, together):
        close(found, logits(model, [row], Ablation(kind), [heads])[0])
    plain = logits(model, rows)
    assert torch.equal(together[0], plain[0]) or torch.allclose(together[0], plain[0], atol=1e-5)
    assert all((found - other).abs().max() > 1e-3 for found, other in zip(together[1:], plain[1:]))


@given(st.permutations(range(6)))
def test_a_set_is_a_set(mini: Mini, order: list[int]) -> None:
    model = install(mini("llama_gqa"))
    heads = [Head(0, 0), Head(0, 2), Head(1, 1), Head(1, 3), Head(2, 0), Head(2, 3)]
    rows, ablation = [[5, 9, 17, 33]], Ablation(Kind.MEAN_OUTPUT)
    expected = logits(model, rows, ablation, [tuple(heads)])
    assert torch.equal(logits(model, rows, ablation, [tuple(heads[at] for at in order)]), expected)


def test_mean_kinds_leave_a_layer_of_one_head_as_it_is(mini: Mini, sequences: Sequences) -> None:
    model = install(mini("llama", num_attention_heads=1, num_key_value_heads=1, num_hidden_layers=1))
    rows = sequences([6])
    for kind in (Kind.MEAN_QUERY, Kind.MEAN_KEY, Kind.MEAN_OUTPUT):
        close(logits(model, rows, Ablation(kind), [(Head(0, 0),)]), logits(model, rows))


def test_a_sequence_of_one_token_has_nothing_to_differentiate(mini: Mini) -> None:
    model = install(mini("llama"))
    plain = logits(model, [[7]])
    for kind in (Kind.UNDIFFERENTIATED, Kind.MEAN_QUERY, Kind.MEAN_KEY):
        close(logits(model, [[7]], Ablation(kind), [all_heads(3, 4)]), plain)
    assert (logits(model, [[7]], Ablation(Kind.SCALING), [all_heads(3, 4)]) - plain).abs().max() > 0.05


def test_weights_are_untouched(mini: Mini, sequences: Sequences) -> None:
    model = install(mini("llama_gqa"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for kind in Kind:
        logits(model, sequences([7] * len(SETS)), Ablation(kind), SETS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_nothing_is_left_after_the_block(mini: Mini, sequences: Sequences) -> None:
    model, rows = install(mini("llama")), sequences([7, 7])
    plain = logits(model, rows)
    logits(model, rows, Ablation(Kind.SCALING), [SETS[1], SETS[2]])
    with torch.inference_mode():
        assert torch.equal(model(torch.tensor(rows), use_cache=False).logits, plain)
        with pytest.raises(KeyError, match="inside"), ablate(model, Ablation(Kind.SCALING), [SETS[1], SETS[2]]):
            raise KeyError("inside")
        assert torch.equal(model(torch.tensor(rows), use_cache=False).logits, plain)


def test_blocks_cannot_be_nested_and_the_outer_one_goes_on(mini: Mini, sequences: Sequences) -> None:
    model, rows = install(mini("llama")), sequences([7])
    expected = logits(model, rows, Ablation(Kind.SCALING), [SETS[1]])
    with torch.inference_mode(), ablate(model, Ablation(Kind.SCALING), [SETS[1]]):
        with pytest.raises(SafetyHeadsError, match="nested"), ablate(model, Ablation(Kind.MEAN_KEY), [SETS[2]]):
            pass
        assert torch.equal(model(torch.tensor(rows), use_cache=False).logits, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_head_sets_is_named(count: int, mini: Mini, sequences: Sequences) -> None:
    model = install(mini("llama"))
    with pytest.raises(SafetyHeadsError, match=f"{count} head sets were given for a batch of 2 rows"):
        logits(model, sequences([5, 5]), Ablation(Kind.SCALING), [SETS[1]] * count)


def test_heads_without_an_ablation_are_an_error(mini: Mini) -> None:
    with pytest.raises(SafetyHeadsError, match="no ablation"), ablate(install(mini("llama")), None, [(), SETS[1]]):
        pass


def test_rows_can_be_dropped_and_reordered_while_the_block_runs(mini: Mini, sequences: Sequences) -> None:
    model, rows, ablation = install(mini("llama")), sequences([6] * len(SETS)), Ablation(Kind.MEAN_QUERY)
    expected = logits(model, rows, ablation, SETS)
    with torch.inference_mode(), ablate(model, ablation, SETS) as running:
        assert running is not None
        running.select(torch.tensor([5, 1, 2]))
        close(model(torch.tensor([rows[5], rows[1], rows[2]]), use_cache=False).logits, expected[[5, 1, 2]])
        running.select(torch.tensor([2, 0]))
        close(model(torch.tensor([rows[2], rows[5]]), use_cache=False).logits, expected[[2, 5]])


@pytest.mark.parametrize("family", ["llama_gqa", "mistral", "gemma2"])
@pytest.mark.parametrize("kind", list(Kind))
def test_with_a_cache_the_last_position_is_the_same(family: str, kind: Kind, mini: Mini, sequences: Sequences) -> None:
    model, rows, ablation = install(mini(family)), sequences([9] * len(SETS)), Ablation(kind)
    expected = logits(model, rows, ablation, SETS)
    with torch.inference_mode(), ablate(model, ablation, SETS):
        start = model(torch.tensor(rows)[:, :6], use_cache=True)
        close(start.logits, expected[:, :6])
        for at in range(6, 9):
            start = model(torch.tensor(rows)[:, at : at + 1], past_key_values=start.past_key_values, use_cache=True)
            close(start.logits[:, 0], expected[:, at])


def test_eager_attention_gives_the_same_as_sdpa(mini: Mini, sequences: Sequences) -> None:
    for family in ("llama_gqa", "mistral"):
        sdpa, eager = install(mini(family)), mini(family)
        eager.set_attn_implementation("eager")
        install(eager)
        for kind in Kind:
            rows = sequences([8] * len(SETS))
            close(logits(eager, rows, Ablation(kind), SETS), logits(sdpa, rows, Ablation(kind), SETS))


def test_installing_twice_is_installing_once_and_the_implementation_keeps_its_name(
    mini: Mini, sequences: Sequences
) -> None:
    model, rows = install(mini("llama")), sequences([5])
    expected = logits(model, rows, Ablation(Kind.SCALING), [SETS[1]])
    assert install(model) is model
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(logits(model, rows, Ablation(Kind.SCALING), [SETS[1]]), expected)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_models_that_are_not_installed_are_left_alone(family: str, mini: Mini, sequences: Sequences) -> None:
    """Beside one that is installed, with the same implementation of attention (sdpa, eager), also within its block."""
    installed, other, rows = install(mini(family)), mini(family), torch.tensor(sequences([7]))
    with torch.inference_mode():
        expected = other(rows).logits
        with ablate(installed, Ablation(Kind.SCALING), [SETS[1]]):
            assert torch.equal(other(rows).logits, expected)
            assert not torch.equal(installed(rows).logits, expected)


def test_a_family_outside_the_interface_is_named() -> None:
    config = FalconConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(SafetyHeadsError, match="FalconForCausalLM does not use the attention interface.*Llama"):
        install(FalconForCausalLM(config))


def test_settings_become_an_ablation() -> None:
    assert Ablation.of({}) is None
    assert Ablation.of({"kind": "scaling", "epsilon": 0.5}) == Ablation(Kind.SCALING, 0.5)
    assert Ablation.of({"kind": "mean_key"}) == Ablation(Kind.MEAN_KEY, 1e-5)
    with pytest.raises(ValueError, match="nothing"):
        Ablation.of({"kind": "nothing"})


def test_a_model_that_was_not_installed_cannot_be_ablated(mini: Mini) -> None:
    model = mini("llama")
    with ablate(model, None, [()]):
        pass
    with pytest.raises(SafetyHeadsError, match="LlamaForCausalLM was not installed"):
        ablate(model, Ablation(Kind.SCALING), [SETS[1]]).__enter__()


def test_a_block_leaves_other_models_alone_also_those_that_were_ablated_before(
    mini: Callable[..., PreTrainedModel], sequences: Callable[..., list[list[int]]]
) -> None:
    ours, theirs = (install(mini("llama", seed=seed)) for seed in (1, 2))
    ids = torch.tensor(sequences([7, 7, 7]))
    before = theirs(ids, use_cache=False).logits
    with ablate(ours, Ablation(Kind.SCALING), [(Head(1, 2),)] * 2):
        assert torch.equal(theirs(ids, use_cache=False).logits, before), "whatever the size of its batch"
        copied = copy.deepcopy(ours)
        plain = copied(ids[:2], use_cache=False).logits
    assert torch.equal(copied(ids[:2], use_cache=False).logits, plain)
    with ablate(copied, Ablation(Kind.SCALING), [(Head(1, 2),)] * 2):
        assert not torch.equal(copied(ids[:2], use_cache=False).logits, plain), "a copy is ready for ablation, too"
