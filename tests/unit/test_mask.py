"""Mask: descent on gates finds the group whose ablation takes the margin away, from every start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from torch import Tensor
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import mask as module
from safetyheads.attribution.mask import ablated_share, learn, mask
from safetyheads.attribution.refusal_margin import refusal_margin
from safetyheads.attribution.refusal_shift import FirstTokens
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.engine.ablation import install
from safetyheads.engine.gates import gates, last_logits, slopes
from safetyheads.engine.partial_forward import Top
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

SCALING = Ablation(Kind.SCALING, 0.05)
FIRST = FirstTokens((3, 7, 12), (20, 31), 0.9, 0.1, 1.0)
LENGTHS = [6, 3, 9, 6, 5, 5]

MARGINS: dict[str, tuple[Callable[[Tensor], Tensor], set[tuple[int, int]]]] = {
    "two": (lambda off: 12 - 5 * off[:, 0, 1] - 2 * off[:, 2, 3], {(0, 1), (2, 3)}),
    "beside one that holds refusals back": (lambda off: 9 - 5 * off[:, 0, 1] + 3 * off[:, 1, 1], {(0, 1)}),
    "beside one of next to no effect": (lambda off: 9 - 5 * off[:, 0, 1] - 0.3 * off[:, 1, 1], {(0, 1)}),
    "two that stand in for each other": (
        lambda off: 10 - 20 * torch.sigmoid(20 * (off[:, 0, 1] + off[:, 2, 3] - 1.5)),
        {(0, 1), (2, 3)},
    ),
    "of half of the prompts each": (
        lambda off: (
            12
            - 12 * torch.arange(len(off)).remainder(2) * off[:, 0, 1]
            - 12 * torch.arange(1, len(off) + 1).remainder(2) * off[:, 2, 3]
        ),
        {(0, 1), (2, 3)},
    ),
    "none": (lambda off: 10 + off.sum(dim=(1, 2)), set()),
}


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


def score(model: PreTrainedModel, prompts: list[list[int]], folder: Path, **settings: Any) -> pd.DataFrame:
    parts = Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet")
    return mask(model, frame(prompts), SCALING, FIRST, **{"token_budget": 400, "parts": parts, **settings})


@pytest.mark.parametrize("heads", [8, 32])
@pytest.mark.parametrize("name", MARGINS)
def test_five_starts_find_the_group_that_was_planted(name: str, heads: int, tmp_path: Path) -> None:
    margin, planted = MARGINS[name]

    def slope(at: Tensor, prompts: list[int]) -> Tensor:
        gates = at.clone().requires_grad_()
        return torch.autograd.grad(margin(1 - gates).sum(), gates)[0]

    together = learn(slope, (4, heads), 100, 0.5, range(5), Parts(tmp_path / "a"))
    (alone,) = learn(slope, (4, heads), 100, 0.5, [3], Parts(tmp_path / "b"))
    np.testing.assert_allclose(alone, together[3], atol=1e-3)
    for logits in together:
        share = ablated_share(logits)
        assert {(layer, head) for layer, head in (share > 0.5).nonzero().tolist()} == planted
        assert torch.equal(share > 0.5, logits > 0)


def test_a_head_that_takes_less_than_the_strength_is_left_alone(tmp_path: Path) -> None:
    def slope(at: Tensor, prompts: list[int]) -> Tensor:
        return torch.tensor([[2.0, 0.9]]).expand_as(at)

    for strength, group in ((3.0, [False, False]), (1.3, [True, False]), (0.5, [True, True])):
        (logits,) = learn(slope, (1, 2), 40, strength, [0], Parts(tmp_path / str(strength)))
        assert (logits[0] > 0).tolist() == group


def test_slopes_are_those_of_finite_differences_of_the_margin(mini: Mini, sequences: Sequences) -> None:
    model, ids, margin = install(mini("llama_gqa").double()), torch.tensor(sequences([6, 6])), refusal_margin(FIRST)
    at = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = slopes(model, SCALING, margin, ids, at)
    for layer, head in ((0, 2), (2, 1)):
        moved = torch.zeros_like(at)
        moved[:, layer, head] = 1e-2
        values = []
        for sign in (1, -1):
            with gates(model, SCALING, at + sign * moved):
                values.append(margin(last_logits(model, ids)))
        np.testing.assert_allclose(found[:, layer, head], (values[0] - values[1]) / 2e-2, rtol=2e-2, atol=1e-3)


def test_the_selected_group_is_that_of_the_start_whose_ablation_is_worth_most(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, margin = install(mini("llama_gqa")), sequences(LENGTHS), refusal_margin(FIRST)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(4, 3, 4, generator=generator) - 0.8
    monkeypatch.setattr(module, "learn", lambda *args: drawn)
    found = score(model, prompts, tmp_path, starts=4, strength=0.1)
    groups = [tuple(Head(*place) for place in (logits > 0).nonzero().tolist()) for logits in drawn]
    sweep = Sweep(model, prompts, SCALING, 400, Parts(tmp_path / "groups"))
    margins = [
        sweep.of_sets(f"{at}", [group], lambda top: margin(top.logits)).mean() for at, group in enumerate(groups)
    ]
    best = groups[int(np.argmin([value + 0.1 * len(group) for value, group in zip(margins, groups)]))]
    assert list(zip(found["layer"], found["head"])) == list(all_heads(3, 4))
    assert found["selected"].tolist() == [head in best for head in all_heads(3, 4)]
    shares = np.clip(1.2 * expit(drawn.flatten(1).numpy()) - 0.1, 0, 1)
    np.testing.assert_allclose(found["score"], shares.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found["support"], (shares > 0.5).mean(axis=0))


def test_five_starts_find_the_two_heads_that_alone_do_anything(
    mini: Mini, sequences: Sequences, whole: Callable[..., Top], tmp_path: Path
) -> None:
    """R and C are the tokens whose odds both heads hold up most; the output projection forgets the other heads."""
    model, prompts = (
        install(mini("llama", num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=8)),
        sequences(LENGTHS),
    )
    planted, (layer,) = [Head(0, 1), Head(0, 6)], model.model.layers
    layer.mlp.down_proj.weight.zero_()
    kept = layer.self_attn.o_proj.weight.clone()  # (d_model, heads * 4)
    layer.self_attn.o_proj.weight.zero_()
    for head in (1, 6):
        layer.self_attn.o_proj.weight[:, 4 * head : 4 * head + 4] = kept[:, 4 * head : 4 * head + 4]

    def logits(heads: HeadSet) -> Tensor:
        return torch.cat([whole(model, ids, SCALING, heads).logits for ids in prompts]).mean(dim=0)

    none, first_one, second_one, both = (logits(heads) for heads in ((), (planted[0],), (planted[1],), tuple(planted)))
    falls = [
        none - first_one,
        none - second_one,
        first_one - both,
        second_one - both,
    ]  # each alone, and beside the other
    odds = torch.stack([fall[:, None] - fall[None, :] for fall in falls]).amin(dim=0)  # (R, C)
    refusal, answer = divmod(int(odds.argmax()), len(odds))
    first = FirstTokens((refusal,), (answer,), 0.9, 0.1, 1.0)
    assert odds.max() > 0.4
    model.requires_grad_(True)
    parts = Parts(tmp_path / "a.parquet")
    found = mask(model, frame(prompts), SCALING, first, strength=0.1, token_budget=400, parts=parts)
    chosen = found[found["selected"]]
    assert [Head(*key) for key in zip(chosen["layer"], chosen["head"])] == planted
    assert found["support"].tolist() == [float(head in planted) for head in all_heads(1, 8)]
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_a_killed_job_goes_on_with_the_next_step(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEPS", 10)
    model, prompts = install(mini("llama")), sequences(LENGTHS)
    whole, parts = score(model, prompts, tmp_path, starts=3), Parts(tmp_path / "a.parquet", "same")
    original, made = Parts.save, []

    def killed(self: Parts, name: str, array: np.ndarray) -> None:
        made.append(name)
        original(self, name, array)
        if name == "step-6" and made.count(name) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Parts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        score(model, prompts, tmp_path, starts=3, parts=parts)
    assert score(model, prompts, tmp_path, starts=3, parts=parts).equals(whole)
    assert made[:10] == [f"step-{step}" for step in range(10)], "no step is made twice"


def test_a_start_that_has_ended_keeps_its_group_while_others_go_on(tmp_path: Path) -> None:
    asked: list[int] = []

    def slope(at: Tensor, prompts: list[int]) -> Tensor:
        asked.append(len(prompts))
        return torch.tensor([[5.0, 0.0]]).expand_as(at) * (1 + 0.1 * torch.tensor(prompts).remainder(7))[:, None, None]

    parts = Parts(tmp_path / "a")
    both = learn(slope, (1, 2), 40, 0.5, [0, 1], parts)
    count = len(asked)
    alone = [learn(slope, (1, 2), 40, 0.5, [seed], Parts(tmp_path / f"{seed}"))[0] for seed in (0, 1)]
    assert torch.equal(both, torch.stack(alone))
    assert set(asked[:count]) <= {64, 32} and asked[0] == 64
    again = len(asked)
    assert torch.equal(learn(slope, (1, 2), 40, 0.5, [0, 1], parts), both) and len(asked) == again
