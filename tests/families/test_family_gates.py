"""In every family, gates of 1 change nothing, gates of 0 ablate, and the gradient is that of finite differences."""

import pytest
import torch
from members import SETS, build, difference, installed, logits, prompts
from registry import FAMILIES, HEADS, LAYERS, Family

from safetyheads.engine.ablation import ablate, install
from safetyheads.engine.gates import gates, last_logits
from safetyheads.heads import Ablation, Kind

EPSILON = 0.05
IDS = torch.tensor(prompts([11] * len(SETS)))

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@every_family
def test_gates_of_one_are_the_plain_model_and_of_zero_the_ablation(family: Family) -> None:
    model, values = installed(family), torch.ones(len(SETS), LAYERS, HEADS)
    for row, heads in enumerate(SETS):
        for layer, head in heads:
            values[row, layer, head] = 0.0
    own = logits(model, IDS)
    for kind in Kind:
        ablation = Ablation(kind, EPSILON)
        with gates(model, ablation, torch.ones_like(values)):
            assert difference(logits(model, IDS), own) < 1e-5
        with ablate(model, ablation, SETS):
            expected = logits(model, IDS)
        with gates(model, ablation, values):
            assert difference(logits(model, IDS), expected) < 1e-5
    assert torch.equal(logits(model, IDS), own)


@every_family
def test_the_gradient_of_a_gate_is_that_of_finite_differences(family: Family) -> None:
    model, step = install(build(family).double()), 1e-3
    model.set_experts_implementation("eager")  # others know no float64
    kind = list(Kind)[FAMILIES.index(family) % len(Kind)]
    at = torch.full((LAYERS, HEADS), 0.8, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(LAYERS, HEADS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(values: torch.Tensor) -> torch.Tensor:
        with gates(model, Ablation(kind, EPSILON), values):
            return last_logits(model, IDS[:2])[:, 7].sum()

    (slope,) = torch.autograd.grad(value(at), at)
    with torch.no_grad():
        found = (value(at + step * direction) - value(at - step * direction)) / (2 * step)
    assert float((slope * direction).sum()) == pytest.approx(float(found), rel=1e-2, abs=1e-3)
    assert slope.abs().max() > 1e-3
