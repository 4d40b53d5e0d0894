"""Gates: 1 is the plain model, 0 is ablation, and what lies between can be differentiated."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.engine.ablation import ablate, install
from safetyheads.engine.gates import frozen, gates, last_logits
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

LAYERS, HEADS = 3, 4
SETS: list[HeadSet] = [(), (Head(0, 1),), (Head(1, 0), Head(1, 2), Head(2, 3)), (Head(2, 0), Head(2, 1))]
every_kind = pytest.mark.parametrize("kind", list(Kind))
some_families = pytest.mark.parametrize("family", ["llama_gqa", "gemma2", "gpt2"])


def gated(model: PreTrainedModel, ids: Tensor, kind: Kind, values: Tensor) -> Tensor:
    with gates(model, Ablation(kind, 0.05), values):
        return last_logits(model, ids)


def without(head_sets: list[HeadSet]) -> Tensor:
    """Gates (rows, layers, heads) that are 0 for the heads of each row's set."""
    values = torch.ones(len(head_sets), LAYERS, HEADS)
    for row, heads in enumerate(head_sets):
        for layer, head in heads:
            values[row, layer, head] = 0.0
    return values


@some_families
@every_kind
def test_gates_of_one_are_the_plain_model_and_of_zero_the_ablation_of_each_row(
    family: str, kind: Kind, mini: Mini, sequences: Sequences
) -> None:
    model, ids = install(mini(family)), torch.tensor(sequences([7] * len(SETS)))
    plain = last_logits(model, ids)
    torch.testing.assert_close(gated(model, ids, kind, torch.ones(LAYERS, HEADS)), plain, rtol=1e-6, atol=1e-6)
    with ablate(model, Ablation(kind, 0.05), SETS):
        expected = last_logits(model, ids)
    found = gated(model, ids, kind, without(SETS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (expected[1:] - plain[1:]).abs().amax(dim=-1).min() > 1e-3
    same = gated(model, ids, kind, without(SETS[2:3]))  # one row of gates for all
    torch.testing.assert_close(same[2], expected[2], rtol=1e-5, atol=1e-5)
    assert torch.equal(last_logits(model, ids), plain), "nothing is left behind the block"


@some_families
@every_kind
def test_the_gradient_is_that_of_finite_differences_at_any_gates(
    family: str, kind: Kind, mini: Mini, sequences: Sequences
) -> None:
    model, ids = install(mini(family).double()), torch.tensor(sequences([6, 6]))
    generator = torch.Generator().manual_seed(1)
    at = torch.rand(2, LAYERS, HEADS, generator=generator, dtype=torch.float64, requires_grad=True)
    gated(model, ids, kind, at)[:, 5].sum().backward()
    assert at.grad is not None
    step = 3e-3  # norms compute in float32, whatever the model is in
    for layer, head in ((0, 0), (1, 3), (2, 1)):
        moved = torch.zeros_like(at)
        moved[:, layer, head] = step
        with torch.no_grad():
            above, below = (gated(model, ids, kind, at + sign * moved)[:, 5] for sign in (1, -1))
        found = ((above - below) / (2 * step)).numpy()
        np.testing.assert_allclose(at.grad[:, layer, head].numpy(), found, rtol=2e-3, atol=3e-4)
    assert at.grad.abs().min() > 0


def test_a_row_s_gates_change_no_other_row(mini: Mini, sequences: Sequences) -> None:
    model, ids = install(mini("llama")), torch.tensor(sequences([6, 6]))
    values = torch.ones(2, LAYERS, HEADS, requires_grad=True)
    gated(model, ids, Kind.SCALING, values)[0].sum().backward()
    assert values.grad is not None
    assert values.grad[0].abs().min() > 0
    assert values.grad[1].abs().max() == 0


def test_weights_get_no_gradients_and_may_be_trained_again_afterwards(mini: Mini, sequences: Sequences) -> None:
    model, ids = install(mini("llama")).requires_grad_(True), torch.tensor(sequences([6]))
    model.lm_head.weight.requires_grad_(False)
    values = torch.ones(LAYERS, HEADS, requires_grad=True)
    gated(model, ids, Kind.UNDIFFERENTIATED, values).sum().backward()
    assert all(weight.grad is None for weight in model.parameters())
    kept = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert kept == {"lm_head.weight"}
    with pytest.raises(KeyError), frozen(model):
        raise KeyError
    assert model.model.embed_tokens.weight.requires_grad


def test_another_model_computes_what_it_always_did(mini: Mini, sequences: Sequences) -> None:
    model, other, ids = install(mini("llama")), install(mini("llama", seed=1)), torch.tensor(sequences([6]))
    plain = last_logits(other, ids)
    with gates(model, Ablation(Kind.SCALING), torch.zeros(LAYERS, HEADS)):
        assert torch.equal(last_logits(other, ids), plain)


def test_blocks_cannot_be_nested(mini: Mini) -> None:
    model, ablation, ones = install(mini("llama")), Ablation(Kind.SCALING), torch.ones(LAYERS, HEADS)
    with gates(model, ablation, ones):
        with pytest.raises(SafetyHeadsError, match="nested"), ablate(model, ablation, [()]):
            pass
        with pytest.raises(SafetyHeadsError, match="nested"), gates(model, ablation, ones):
            pass
    with (
        ablate(model, ablation, [()]),
        pytest.raises(SafetyHeadsError, match="nested"),
        gates(model, ablation, ones),
    ):
        pass


@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 3), (1, 1, 3, 4)])
def test_gates_of_another_shape_are_an_error(shape: tuple[int, ...], mini: Mini) -> None:
    with (
        pytest.raises(SafetyHeadsError, match=r"must have the shape \(3, 4\)"),
        gates(install(mini("llama")), Ablation(Kind.SCALING), torch.ones(shape)),
    ):
        pass


def test_gates_for_another_number_of_rows_are_an_error(mini: Mini, sequences: Sequences) -> None:
    with pytest.raises(SafetyHeadsError, match=r"Gates for 3 rows were given for a batch of 2 rows\."):
        gated(install(mini("llama")), torch.tensor(sequences([6, 6])), Kind.SCALING, torch.ones(3, LAYERS, HEADS))


def test_a_model_that_is_not_installed_is_an_error(mini: Mini) -> None:
    with (
        pytest.raises(SafetyHeadsError, match="call `install` first"),
        gates(mini("llama"), Ablation(Kind.SCALING), torch.ones(LAYERS, HEADS)),
    ):
        pass
