"""Every family goes through all methods of attribution, without a special case for any."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from members import SETS, installed, logits, prompts
from registry import FAMILIES, HEADS, LAYERS, WINDOW, Family

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import mask as mask_module
from safetyheads.attribution.displacement import displacement
from safetyheads.attribution.gradient import gradient
from safetyheads.attribution.knockouts import knockouts
from safetyheads.attribution.mask import mask
from safetyheads.attribution.refusal_direction import refusal_direction
from safetyheads.attribution.refusal_margin import refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.sahara_centred import sahara_centred
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import ablate
from safetyheads.engine.contributions import contributions
from safetyheads.engine.divergence import divergence
from safetyheads.engine.shared_prefix import SharedPrefix
from safetyheads.heads import Ablation, Head, Kind, all_heads

ABLATION = Ablation(Kind.UNDIFFERENTIATED, 0.05)
FIRST = FirstTokens((7, 12, 30), (20, 31), 0.9, 0.1, 1.0)
EVERY = list(all_heads(LAYERS, HEADS))

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def frame(lengths: list[int], seed: int = 0) -> pd.DataFrame:
    token_ids = prompts(lengths, seed)
    return pd.DataFrame({"query_id": [f"q-{at}" for at in range(len(token_ids))], "token_ids": token_ids})


@every_family
def test_what_a_head_writes_is_what_its_removal_takes_from_the_output_of_its_attention(family: Family) -> None:
    model, ids = installed(family), torch.tensor(prompts([7, 7]))
    generator = torch.Generator().manual_seed(0)
    seen: dict[int, torch.Tensor] = {}

    def see(module: Any, _: Any, output: Any) -> None:
        layer = getattr(module, "layer_idx", None)
        if layer is not None and hasattr(module, "scaling"):
            seen[layer] = (output[0] if isinstance(output, tuple) else output)[:, -1].double()

    hooks = [module.register_forward_hook(see) for module in model.modules()]
    width = model.config.hidden_size
    directions = torch.randn(LAYERS, width, generator=generator, dtype=torch.float64)
    logits(model, ids)
    plain = dict(seen)
    expected = np.zeros((2, LAYERS, HEADS))
    for layer, head in EVERY:
        with ablate(model, Ablation(Kind.SCALING, 1e-9), [(Head(layer, head),)] * 2):
            logits(model, ids)
        expected[:, layer, head] = ((plain[layer] - seen[layer]) @ directions[layer]).numpy()
    for hook in hooks:
        hook.remove()
    found = contributions(model, directions, ids).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.01


@every_family
def test_what_all_prompts_begin_with_is_run_once_and_changes_no_score(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefix that is longer than the window, and prompts whose rest is shorter and longer than it."""
    model, start = installed(family), prompts([WINDOW + 2], seed=3)[0]
    harmful = frame([1, WINDOW + 2, 3, 3], seed=1)
    harmful["token_ids"] = [[*start, *rest] for rest in harmful["token_ids"]]
    made: list[int] = []
    cache = SharedPrefix.cache
    monkeypatch.setattr(SharedPrefix, "cache", lambda self, *of: (made.append(1), cache(self, *of))[1])
    found = ships(model, harmful, ABLATION, token_budget=300, parts=Parts(tmp_path / "ships"))
    assert made, "the shortcut is in use"
    expected = []
    for ids in harmful["token_ids"]:
        sets = [(), *((head,) for head in EVERY)]
        with ablate(model, ABLATION, sets):
            plain, *ablated = logits(model, torch.tensor([ids] * len(sets)))[:, -1]
        expected += [float(divergence(plain, own)) for own in ablated]
    np.testing.assert_allclose(found["score"], expected, rtol=2e-3, atol=1e-6)


@every_family
def test_it_goes_through_the_methods_that_differentiate(family: Family, tmp_path: Path) -> None:
    model, harmful, benign = installed(family), frame([6, 4, 6]), frame([5, 6], seed=1)
    slopes, record = gradient(
        model, harmful, ABLATION, FIRST, sample=2, token_budget=300, parts=Parts(tmp_path / "gradient")
    )
    written = refusal_direction(
        model, harmful, benign, layer="own", token_budget=300, parts=Parts(tmp_path / "direction")
    )
    for table in (slopes, written):
        assert list(zip(table["layer"], table["head"])) == EVERY
        assert np.isfinite(table["score"]).all()
        assert table["score"].abs().max() > 1e-3
    assert record["prompts"] == 2


@every_family
def test_it_goes_through_the_methods_that_ablate_many_heads_at_once(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_module, "STEPS", 4)
    model, harmful = installed(family), frame([6, 4, 6])
    given: Any = {"token_budget": 300}
    made = knockouts(model, harmful, ABLATION, FIRST, masks=12, **given, parts=Parts(tmp_path / "knockouts"))
    learned = mask(model, harmful, ABLATION, FIRST, starts=2, **given, parts=Parts(tmp_path / "mask"))
    for table in (made, learned):
        assert list(zip(table["layer"], table["head"])) == EVERY
        assert np.isfinite(table[["score", "support"]]).all(axis=None)
        assert table["support"].between(0, 1).all()
        assert table["selected"].dtype == bool
    margin, token_ids = refusal_margin(FIRST), harmful["token_ids"].tolist()
    found = Sweep(model, token_ids, ABLATION, 300, Parts(tmp_path / "sets")).of_sets(
        "sets", SETS, lambda top: margin(top.logits)
    )
    with ablate(model, ABLATION, SETS):
        expected = [margin(logits(model, torch.tensor([ids] * len(SETS)))[:, -1]).numpy() for ids in token_ids]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    assert np.ptp(found, axis=1).min() > 1e-3
    steps = sahara_centred(
        *(model, harmful, ABLATION),
        steps=1,
        rank=1,
        representation="final_norm",
        **given,
        parts=Parts(tmp_path / "sahara"),
    )
    moved = displacement(model, harmful, ABLATION, steps=1, **given, parts=Parts(tmp_path / "displacement"))
    for table in (steps, moved):
        assert list(zip(table["layer"], table["head"])) == EVERY
        assert table["score"].max() > 0.01
