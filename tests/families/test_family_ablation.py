"""In every family, each kind of ablation is what its definition says, on the rows and heads that were named."""

import pytest
import torch
from definition import defined
from members import SETS, build, difference, eager, installed, logits, own_logits, pairs, plain, prompts
from registry import FAMILIES, HEADS, LAYERS, Family
from torch import Tensor, nn

from safetyheads.engine.ablation import ablate, install
from safetyheads.heads import Ablation, Head, HeadSet, Kind

EPSILON = 0.05
IDS = torch.tensor(prompts([11] * len(SETS)))
ROUNDING = 1e-5

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def ablated(model: nn.Module, kind: Kind, sets: list[HeadSet], ids: Tensor = IDS) -> Tensor:
    with ablate(model, Ablation(kind, EPSILON), sets):
        return logits(model, ids)


@every_family
def test_ablating_nothing_is_bit_identical_to_the_model_s_own_forward(family: Family) -> None:
    own = own_logits(plain(family), IDS)
    model = installed(family)
    assert torch.equal(logits(model, IDS), own)
    for kind in Kind:
        assert torch.equal(ablated(model, kind, [()] * len(IDS)), own)


@every_family
def test_every_kind_equals_its_definition(family: Family) -> None:
    own = own_logits(eager(family), IDS)
    for kind in Kind:
        with defined(eager(family), kind.value, EPSILON, [pairs(heads) for heads in SETS]) as layers:
            expected = logits(eager(family), IDS)
        assert layers == list(range(LAYERS))
        assert difference(expected[0], own[0]) < ROUNDING, "the definition is not this family's attention"
        found = ablated(installed(family), kind, SETS)
        for row in range(len(SETS)):
            assert difference(found[row], expected[row]) < 2 * ROUNDING, f"{kind}, {SETS[row]}"
            assert row == 0 or difference(found[row], own[row]) > 1e-3, f"{kind}: {SETS[row]} do not matter"


@every_family
def test_rows_do_not_leak(family: Family) -> None:
    """The row of other prompts and other heads beside it changes no row."""
    for kind in Kind:
        together = ablated(installed(family), kind, SETS)
        for row in range(len(SETS)):
            alone = ablated(installed(family), kind, [SETS[row]], IDS[row : row + 1])
            assert difference(together[row], alone[0]) < ROUNDING


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.without], ids=lambda family: family.name)
def test_what_is_special_of_a_family_is_at_work(family: Family) -> None:
    assert difference(own_logits(build(family, **family.without), IDS), own_logits(plain(family), IDS)) > 1e-3


def weight_of(attention: nn.Module, name: str, head: int) -> Tensor:
    """The part of the projection to queries or values that makes a head, where each has keys and values of its own."""
    if hasattr(attention, "kv_b_proj"):  # latent: keys without positions, and values, in one projection
        weight = (attention.q_b_proj if name == "q" else attention.kv_b_proj).weight
        per_head = weight.view(HEADS, -1, weight.shape[-1])[head]
        return per_head if name == "q" else per_head[attention.qk_nope_head_dim :]
    if hasattr(attention, "query_key_value"):
        weight = attention.query_key_value.weight
        return weight.view(HEADS, 3, -1, weight.shape[-1])[head, "qkv".index(name)]
    if hasattr(attention, "qkv_proj"):
        weight = attention.qkv_proj.weight
        return weight.view(3, HEADS, -1, weight.shape[-1])["qkv".index(name), head]
    weight = getattr(attention, f"{name}_proj").weight
    return weight.view(HEADS, -1, weight.shape[-1])[head]


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family.surgery is not None], ids=lambda family: family.name
)
def test_ablating_a_head_equals_scaling_its_weights_where_nothing_undoes_it(family: Family) -> None:
    """Equations 7 and 8 of the paper. Not so with a bias, a norm behind the projection, or keys that heads share."""
    assert family.surgery is not None
    model, head = install(build(family, **family.surgery)), Head(1, 2)
    for kind, names in ((Kind.UNDIFFERENTIATED, "q"), (Kind.SCALING, "v")):
        found = ablated(model, kind, [(head,)] * len(IDS))
        for name in names:
            changed = build(family, **family.surgery)
            (attention,) = (
                module
                for module in changed.modules()
                if getattr(module, "layer_idx", None) == head.layer
                and hasattr(module, "config")
                and hasattr(module, "scaling")
            )
            with torch.no_grad():
                weight_of(attention, name, head.head).mul_(EPSILON)
            expected = own_logits(changed, IDS)
            assert difference(found, expected) < 2 * ROUNDING
            assert difference(expected, own_logits(build(family, **family.surgery), IDS)) > 1e-3
