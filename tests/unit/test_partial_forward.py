"""Partial passes: the numbers of whole ones, for less arithmetic, layer by layer."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from small_models import FAMILIES
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, PreTrainedModel

from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]

GROUP: HeadSet = (Head(0, 1),)


def untouched(model: PreTrainedModel) -> bool:
    return not any(
        "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks for module in model.modules()
    )


def assert_same(found: Top, expected: Top) -> None:
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def plainly(passes: PartialForward, *args: Any) -> Top:
    """A whole pass without any shortcut."""
    shortcut, passes.shortcut = passes.shortcut, Shortcut.NONE
    top = passes.whole(*args)
    passes.shortcut = shortcut
    return top


@pytest.mark.parametrize("length", [7, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_equals_whole(family: str, length: int, mini: Mini, sequences: Sequences) -> None:
    """At every layer, with every shortcut, also where another head is ablated below, and rows in any order."""
    passes, prompts = PartialForward(install(mini(family))), torch.tensor(sequences([length] * 3))
    ablation, rows = Ablation(Kind.UNDIFFERENTIATED), [1, 0, 2, 2, 0]
    for shortcut, layer in product(Shortcut, range(3)):
        passes.shortcut = shortcut
        group = GROUP if layer else ()
        sets = [*([(*group, Head(layer, 2))] * 2), (*group, Head(layer, 0), Head(2, 3)), group, (*group, Head(2, 1))]
        kept, top = passes.keep(prompts, ablation, group, layers=[layer])
        assert_same(top, plainly(passes, prompts, ablation, [group] * 3))
        found = passes.resume(kept, rows, layer, ablation, sets)
        assert_same(found, plainly(passes, prompts[rows], ablation, sets))
    assert untouched(passes.model)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("family", ["llama_gqa", "gemma2", "gpt_neox", "gpt2"])
def test_resumed_equals_whole_for_every_kind(family: str, kind: Kind, mini: Mini, sequences: Sequences) -> None:
    passes, prompts = PartialForward(install(mini(family))), torch.tensor(sequences([6, 6]))
    kept, top = passes.keep(prompts, None, layers=range(len(passes.layers)))
    for layer in range(3):
        sets: list[HeadSet] = [(Head(layer, 1),), (Head(layer, 0), Head(layer, 3)), ()]
        found = passes.resume(kept, [0, 1, 1], layer, Ablation(kind, 0.1), sets)
        expected = plainly(passes, prompts[[0, 1, 1]], Ablation(kind, 0.1), sets)
        assert_same(found, expected)
        assert (found.logits[0] - top.logits[0]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cache_is_that_of_a_whole_pass(family: str, mini: Mini, sequences: Sequences) -> None:
    passes, prompts = PartialForward(install(mini(family))), torch.tensor(sequences([6, 6]))
    ablation, sets = Ablation(Kind.SCALING), [(Head(1, 1),), (Head(1, 2),)]
    plain, resumed, expected = DynamicCache(), DynamicCache(), DynamicCache()
    kept, _ = passes.keep(prompts, None, (), plain, layers=[1])
    passes.resume(kept, [0, 1], 1, ablation, sets, resumed)
    plainly(passes, prompts, ablation, sets, expected)
    for layer in range(3):
        made = (plain if layer <= 1 else resumed).layers[layer]
        for name, row in product(("keys", "values"), (0, 1)):
            ours, theirs = (getattr(cached, name)[row] for cached in (made, expected.layers[layer]))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_that_stops_at_a_layer_has_its_input_and_runs_no_further(
    family: str, mini: Mini, sequences: Sequences
) -> None:
    passes, prompts = PartialForward(install(mini(family))), torch.tensor(sequences([6, 6]))
    ablation, run = Ablation(Kind.UNDIFFERENTIATED), [0, 0, 0]
    for shortcut, layer in product(Shortcut, range(3)):
        passes.shortcut = shortcut
        group = (*GROUP, Head(2, 3)) if layer else ()
        whole, _ = passes.keep(prompts, ablation, group, layers=[layer])
        run[:] = 0, 0, 0
        hooks = [
            module.register_forward_hook(lambda *_, at=at: run.__setitem__(at, run[at] + 1))
            for at, module in enumerate(passes.layers)
        ]
        kept = passes.keep_up_to(prompts, ablation, group, layer)
        for hook in hooks:
            hook.remove()
        assert kept.inputs.keys() == whole.inputs.keys() == ({layer} if shortcut else set())
        assert all(torch.equal(kept.inputs[at], whole.inputs[at]) for at in kept.inputs), "to the last bit"
        assert run == [int(bool(shortcut) and at < layer) for at in range(3)]
        assert untouched(passes.model)
        sets: list[HeadSet] = [(*group, Head(layer, 2))] * 2
        found = passes.resume(kept, [0, 1], layer, ablation, sets)
        assert_same(found, plainly(passes, prompts, ablation, sets))


def test_an_error_below_the_layer_that_a_pass_is_run_for_is_not_taken_for_its_end(
    mini: Mini, sequences: Sequences
) -> None:
    model = install(mini("llama"))
    passes = PartialForward(model)
    with pytest.raises(IndexError):
        passes.keep_up_to(torch.tensor([[97]]), None, (), 1)
    assert untouched(model)


def test_nothing_stays_behind_after_an_error(mini: Mini, sequences: Sequences) -> None:
    model = install(mini("llama"))
    passes = PartialForward(model)
    kept, _ = passes.keep(torch.tensor(sequences([5])), None, layers=[1])
    with pytest.raises(SafetyHeadsError, match="no ablation"):
        passes.resume(kept, [0], 1, None, [(Head(1, 0),)])
    with pytest.raises(IndexError):
        passes.keep(torch.tensor([[97]]), None, layers=[1])
    with pytest.raises(SafetyHeadsError, match="2 head sets"):
        passes.resume(kept, [0], 1, Ablation(Kind.SCALING), [(Head(1, 0),), (Head(1, 1),)])
    assert untouched(model)


def test_a_forward_that_a_library_put_there_is_used_and_put_back(mini: Mini, sequences: Sequences) -> None:
    model = install(mini("llama"))
    layer: Any = model.model.layers[1]
    own = layer.forward
    layer.forward = lambda *args, **kwargs: 2.0 * own(*args, **kwargs)
    wrapped = layer.forward
    passes, prompts, ablation = PartialForward(model), torch.tensor(sequences([5])), Ablation(Kind.SCALING)
    kept, _ = passes.keep(prompts, None, layers=range(len(passes.layers)))
    for at in range(3):
        sets = [(Head(at, 0),)]
        assert_same(passes.resume(kept, [0], at, ablation, sets), plainly(passes, prompts, ablation, sets))
    assert layer.forward is wrapped


def test_less_than_half_of_the_arithmetic_is_left(mini: Mini, sequences: Sequences) -> None:
    """Counted, of all layers together: half of it by resuming, more by splitting layers at the attention."""
    model = install(mini("llama", num_hidden_layers=8, hidden_size=64, intermediate_size=172))
    passes, prompts = PartialForward(model), torch.tensor(sequences([30]))
    heads = [(Head(layer, head),) for layer in range(8) for head in range(4)]
    counted: dict[Shortcut, int] = {}
    for shortcut in Shortcut:
        passes.shortcut = shortcut
        with FlopCounterMode(display=False) as counter:
            kept, _ = passes.keep(prompts, None, layers=range(len(passes.layers)))
            for layer in range(8):
                passes.resume(kept, [0] * 4, layer, Ablation(Kind.SCALING), heads[4 * layer : 4 * layer + 4])
        counted[shortcut] = counter.get_total_flops()
    assert counted[Shortcut.RESUME] < 0.6 * counted[Shortcut.NONE]
    assert counted[Shortcut.SPLIT] < 0.85 * counted[Shortcut.RESUME]
