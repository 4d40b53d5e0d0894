"""Self-checks: no shortcut is lost where it works, and none is kept where it does not."""

import logging
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import torch
from small_models import FAMILIES
from test_partial_forward import Mini, Sequences, assert_same, plainly
from torch import Tensor

from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import PartialForward, Shortcut
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.heads import Ablation, Head, Kind

FORBIDDEN = torch.arange(40, 50)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_needs_to_fall_back(
    family: str, mini: Mini, sequences: Sequences, caplog: pytest.LogCaptureFixture
) -> None:
    passes = PartialForward(install(mini(family)))
    for length in (1, 9):
        passes.checked = False
        check_shortcuts(passes, *sequences([length]))
        assert passes.shortcut is Shortcut.PREFIX
    assert not [record for record in caplog.records if record.name.startswith("safetyheads")]


def mixes_positions(model: Any) -> None:
    """A last layer whose output at one position depends on others behind the attention."""
    layer = model.model.layers[-1]
    layer.mlp.register_forward_hook(lambda _, inputs, output: output + inputs[0].mean(dim=1, keepdim=True))


def reaches_back(model: Any) -> None:
    """A layer that reads what another one computed two layers before."""
    seen: list[Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
    model.model.layers[2].mlp.register_forward_hook(lambda _, __, output: output + seen[-1])


def wants_all_positions(model: Any) -> None:
    """A layer that fails where it is called in another way."""

    def refuse(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[1] == 1:
            raise TypeError("one position is not enough")

    model.model.layers[-1].mlp.register_forward_pre_hook(refuse)


@pytest.mark.parametrize(
    ("change", "level", "reason"),
    [
        (mixes_positions, Shortcut.RESUME, "is off by"),
        (reaches_back, Shortcut.NONE, "is off by"),
        (wants_all_positions, Shortcut.RESUME, "TypeError: one position is not enough"),
    ],
)
def test_a_family_that_works_in_another_way_is_computed_as_a_whole(
    change: Callable[[Any], None],
    level: Shortcut,
    reason: str,
    mini: Mini,
    sequences: Sequences,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = install(mini("llama"))
    passes, (prompt,) = PartialForward(model), sequences([7])
    change(model)
    with caplog.at_level(logging.WARNING):
        check_shortcuts(passes, prompt)
    assert passes.shortcut is level
    assert reason in caplog.text
    prompts, ablation, heads = torch.tensor([prompt]), Ablation(Kind.SCALING), (Head(1, 2),)
    kept, _ = passes.keep(prompts, None, layers=range(len(passes.layers)))
    assert_same(passes.resume(kept, [0], 1, ablation, [heads]), plainly(passes, prompts, ablation, [heads]))


def forbids_tokens(model: Any) -> None:
    """Logits of -inf, and others of 0 everywhere."""
    model.lm_head.register_forward_hook(lambda _, __, output: torch.zeros_like(output).index_fill(-1, FORBIDDEN, -inf))


def has_its_norm_twice(model: Any) -> None:
    """The final norm is used on the embeddings, too."""
    model.model.embed_tokens.register_forward_hook(lambda _, __, output: model.model.norm(output))


@pytest.mark.parametrize("change", [forbids_tokens, has_its_norm_twice])
def test_odd_models_that_need_no_fall_back(
    change: Callable[[Any], None], mini: Mini, sequences: Sequences, caplog: pytest.LogCaptureFixture
) -> None:
    model, ids = install(mini("llama")), torch.tensor(sequences([7]))
    passes = PartialForward(model)
    change(model)
    check_shortcuts(passes, ids[0].tolist())
    assert passes.shortcut is Shortcut.PREFIX
    assert not [record for record in caplog.records if record.name.startswith("safetyheads")]
    kept, _ = passes.keep(ids, None, layers=[1])
    heads = [(Head(1, 2),)]
    assert_same(
        passes.resume(kept, [0], 1, Ablation(Kind.SCALING), heads), plainly(passes, ids, Ablation(Kind.SCALING), heads)
    )


def test_a_layer_that_attends_twice_is_resumed_as_a_whole(
    mini: Mini, sequences: Sequences, caplog: pytest.LogCaptureFixture
) -> None:
    model = install(mini("llama"))
    passes, (prompt,) = PartialForward(model), sequences([7])
    for layer in model.model.layers[:2]:
        layer.self_attn.register_forward_hook(
            lambda module, args, kwargs, output: module.forward(*args, **kwargs), with_kwargs=True
        )
    with caplog.at_level(logging.WARNING):
        check_shortcuts(passes, prompt)
    assert passes.shortcut is Shortcut.RESUME
    assert "more than once" in caplog.text


def test_it_is_checked_once(mini: Mini, sequences: Sequences, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = PartialForward(install(mini("llama")))
    check_shortcuts(passes, *sequences([4]))
    monkeypatch.setattr(passes, "whole", None)
    check_shortcuts(passes, *sequences([5]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gpt_neox"])
def test_16_bit_models_pass_the_check(dtype: torch.dtype, family: str, mini: Mini, sequences: Sequences) -> None:
    passes = PartialForward(install(mini(family).to(dtype)))
    check_shortcuts(passes, *sequences([12]))
    assert passes.shortcut is Shortcut.PREFIX
