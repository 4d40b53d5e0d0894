"""What all prompts begin with is run once for each head set, and changes no score."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_models import FAMILIES
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import beginning, scoring_passes
from safetyheads.attribution.displacement import displacement
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import install
from safetyheads.engine.decoder import grid
from safetyheads.engine.partial_forward import PartialForward, Shortcut
from safetyheads.engine.self_checks import check_shortcuts
from safetyheads.engine.shared_prefix import SharedPrefix, shared_tokens
from safetyheads.heads import Ablation, Kind, all_heads

Mini = Callable[..., PreTrainedModel]
Sequences = Callable[..., list[list[int]]]
UpTo = Callable[[Shortcut], Parts]

PREFIX = [5, 9, 31, 7, 44, 12]


def after_the_prefix(sequences: Sequences, lengths: list[int]) -> pd.DataFrame:
    ids = [[*PREFIX, *rest] for rest in sequences(lengths)]
    return pd.DataFrame({"query_id": [f"q-{at}" for at in range(len(ids))], "token_ids": ids})


@pytest.fixture
def up_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UpTo:
    """Let passes use no more than a shortcut, and give a place for their parts."""

    def limit(shortcut: Shortcut) -> Parts:
        def give_up(passes: Any, *_: Any) -> None:
            passes.shortcut = shortcut

        monkeypatch.setattr(scoring_passes, "check_shortcuts", give_up)
        return Parts(tmp_path / shortcut.name)

    return limit


@pytest.fixture
def prefixes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The prefixes that were run for themselves."""
    seen: list[list[int]] = []

    class Watched(SharedPrefix):
        def __init__(self, passes: Any, tokens: list[int], *args: Any, **kwargs: Any) -> None:
            seen.append(list(tokens))
            super().__init__(passes, tokens, *args, **kwargs)

    monkeypatch.setattr(beginning, "SharedPrefix", Watched)
    return seen


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_whole_passes(
    family: str,
    kind: Kind,
    mini: Mini,
    sequences: Sequences,
    up_to: UpTo,
    prefixes: list[list[int]],
) -> None:
    """Also with the last token of a prompt alone behind the prefix, and where a prompt's rest is longer."""
    model, prompts = install(mini(family)), after_the_prefix(sequences, [1, 4, 4, 9])
    found: dict[Shortcut, np.ndarray] = {}
    for shortcut in (Shortcut.PREFIX, Shortcut.NONE):
        table = ships(model, prompts, Ablation(kind, 0.1), token_budget=200, parts=up_to(shortcut))
        found[shortcut] = table["score"].to_numpy()
    assert prefixes
    assert all(tokens == PREFIX for tokens in prefixes)
    np.testing.assert_allclose(found[Shortcut.PREFIX], found[Shortcut.NONE], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("token_budget", [24, 60, 4000])
def test_sets_of_heads_of_many_layers_are_those_of_whole_passes(
    token_budget: int,
    mini: Mini,
    sequences: Sequences,
    up_to: UpTo,
    prefixes: list[list[int]],
) -> None:
    model, prompts = install(mini("qwen2")), after_the_prefix(sequences, [3, 5, 5, 8, 2])["token_ids"].tolist()
    heads = all_heads(*grid(model))
    sets = [(), *((one, other) for one, other in zip(heads, heads[3:])), heads[2:]]
    found: list[np.ndarray] = []
    for shortcut in (Shortcut.PREFIX, Shortcut.NONE):
        parts, ablation = up_to(shortcut), Ablation(Kind.UNDIFFERENTIATED)
        sweep = scoring_passes.Sweep(model, prompts, ablation, token_budget, parts)
        found.append(sweep.of_sets("sets", sets, lambda top: top.logits))
    assert prefixes == [PREFIX]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(found[0], axis=1)).max(axis=(0, 2)).min() > 1e-3, "every set makes a difference"


@pytest.mark.parametrize("token_budget", [24, 60, 4000])
def test_a_search_finds_the_same_group(
    token_budget: int,
    mini: Mini,
    sequences: Sequences,
    up_to: UpTo,
    prefixes: list[list[int]],
) -> None:
    """With a head of every layer in the group, whether or not there is room for the states of all blocks."""
    model, prompts = install(mini("qwen2")), after_the_prefix(sequences, [3, 5, 5, 8, 2])
    found: list[pd.DataFrame] = []
    for shortcut in (Shortcut.PREFIX, Shortcut.SPLIT, Shortcut.NONE):
        settings: dict[str, Any] = {"token_budget": token_budget, "parts": up_to(shortcut)}
        found.append(displacement(model, prompts, Ablation(Kind.UNDIFFERENTIATED), steps=4, **settings))
    assert len(prefixes) == 1 + 4, "for the plain states, and for each step"
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0], other, rtol=1e-3, atol=1e-5)
    assert found[0].loc[found[0]["selected"], "layer"].nunique() > 1


def test_less_is_computed(mini: Mini, sequences: Sequences, up_to: UpTo) -> None:
    """Counted: with two thirds of each prompt alike, less than half is left, also if prompts are of many lengths."""
    model = install(mini("llama", num_hidden_layers=6, hidden_size=64, intermediate_size=172))
    same = sequences([24])[0]
    ids = [[*same, *rest] for rest in sequences([9, 10, 11, 12, 12, 13, 14, 15], seed=1)]
    prompts = pd.DataFrame({"query_id": [f"q-{at}" for at in range(8)], "token_ids": ids})
    counted: dict[Shortcut, int] = {}
    for shortcut in (Shortcut.PREFIX, Shortcut.SPLIT):
        parts = up_to(shortcut)
        with FlopCounterMode(display=False) as counter:
            ships(model, prompts, Ablation(Kind.SCALING), token_budget=600, parts=parts)
        counted[shortcut] = counter.get_total_flops()
    assert counted[Shortcut.PREFIX] < 0.5 * counted[Shortcut.SPLIT]


def test_no_layer_of_the_plain_pass_is_computed_twice(mini: Mini, sequences: Sequences, up_to: UpTo) -> None:
    """Calls of each layer with three blocks: for their tops, on the way up, and for the heads of each layer below."""
    model, lengths = install(mini("llama")), [5, 6, 7]
    prompts = pd.DataFrame({"query_id": ["a", "b", "c"], "token_ids": sequences(lengths)})
    parts, calls = up_to(Shortcut.RESUME), [0, 0, 0]
    hooks = [
        layer.register_forward_hook(lambda *_, at=at: calls.__setitem__(at, calls[at] + 1))
        for at, layer in enumerate(model.model.layers)
    ]
    ships(model, prompts, Ablation(Kind.SCALING), token_budget=400, parts=parts)
    for hook in hooks:
        hook.remove()
    decoder_passes = [1, 1, 1]  # that find the model's layers
    top, climbed, heads = [3, 3, 3], [3, 3, 0], [3, 6, 9]
    skipped = [6 + 3, 3, 0]  # layers below the one that is resumed at are called, and return what they are fed
    assert calls == [sum(parts) for parts in zip(decoder_passes, top, climbed, heads, skipped)]


def test_keys_and_values_are_made_once_for_each_layer(
    mini: Mini, sequences: Sequences, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However many blocks and batches have the layer's candidates."""
    model, prompts = install(mini("llama")), after_the_prefix(sequences, [2, 3, 4, 5, 6])
    of_sets, resumed = SharedPrefix.of_sets, list[tuple[int, int]]()

    def count(self: SharedPrefix, layer: int, head_sets: Any) -> Any:
        resumed.append((layer, len(head_sets)))
        return of_sets(self, layer, head_sets)

    monkeypatch.setattr(SharedPrefix, "of_sets", count)
    ships(model, prompts, Ablation(Kind.SCALING), token_budget=200, parts=Parts(tmp_path / "ships"))
    assert [of for of in resumed if of[1] == 4] == [(0, 4), (1, 4), (2, 4)]


@pytest.mark.parametrize("method", [ships, displacement])
def test_an_interrupted_run_gives_the_same_bits(
    method: Callable[..., pd.DataFrame], mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    """With the parts of the lowest layers there, the pass over the prompts begins at a higher one."""
    model, prompts = install(mini("qwen2")), after_the_prefix(sequences, [3, 5, 5, 8, 2])
    settings: dict[str, Any] = {"token_budget": 60} | ({"steps": 2} if method is displacement else {})
    parts = Parts(tmp_path / "parts")
    whole = method(model, prompts, Ablation(Kind.UNDIFFERENTIATED), **settings, parts=parts)
    made = sorted(parts.folder.iterdir())
    for path in made[len(made) // 3 :: 2]:
        path.unlink()
    again = method(model, prompts, Ablation(Kind.UNDIFFERENTIATED), **settings, parts=parts)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert sorted(parts.folder.iterdir()) == made


def test_what_is_shared_leaves_each_prompt_its_last_token(mini: Mini) -> None:
    model, heads = mini("llama"), 4
    assert shared_tokens(model, [[*PREFIX, 1], [*PREFIX, 2, 3]], 100) == PREFIX
    assert shared_tokens(model, [PREFIX, PREFIX], 100) == PREFIX[:-1]
    assert shared_tokens(model, [PREFIX, [*PREFIX, 1]], 100) == PREFIX[:-1]
    assert shared_tokens(model, [PREFIX[:4], [*PREFIX[:4], 1]], 100) == [], "three are not worth it"
    assert shared_tokens(model, [[1, *PREFIX], [2, *PREFIX]], 100) == []
    assert shared_tokens(model, [PREFIX], 100) == [], "there is nothing to share it with"
    together = [[*PREFIX, 1], [*PREFIX, 2]]
    assert shared_tokens(model, together, heads * len(PREFIX)) == PREFIX
    assert shared_tokens(model, together, heads * len(PREFIX) - 1) == [], "a layer's heads do not fit into a batch"


def test_nothing_is_shared_where_longer_texts_have_other_rotary_frequencies(
    mini: Mini, sequences: Sequences, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nor is it tried: a warning of what is not used would be noise."""
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = install(mini("llama", rope_parameters=dynamic))
    assert shared_tokens(model, [[*PREFIX, 1], [*PREFIX, 2]], 100) == []
    sweep = scoring_passes.Sweep(model, sequences([80]), None, 100, Parts(tmp_path / "parts"))
    sweep.check()
    assert sweep.passes.shortcut is Shortcut.SPLIT
    assert not [record for record in caplog.records if record.name.startswith("safetyheads")]


def test_a_model_that_reads_no_prefix_scores_without_it(
    mini: Mini, sequences: Sequences, prefixes: list[list[int]], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """An attention that looks at as many keys as there are queries, whatever stands before them."""
    caches = ("cache", "past_key_values")  # of one transformers or another
    model, prompts = install(mini("llama")), after_the_prefix(sequences, [3, 4])
    expected = ships(model, prompts, Ablation(Kind.SCALING), token_budget=200, parts=Parts(tmp_path / "whole"))
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: (args, {key: kwargs[key] for key in kwargs if key not in caches}), with_kwargs=True
        )
    prefixes.clear()
    found = ships(model, prompts, Ablation(Kind.SCALING), token_budget=200, parts=Parts(tmp_path / "alone"))
    assert not prefixes
    assert "shortcut PREFIX" in caplog.text
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-3, atol=1e-6)


def test_a_check_that_runs_out_of_memory_is_made_again(
    mini: Mini, sequences: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, (prompt,) = PartialForward(install(mini("llama"))), sequences([6])
    whole = passes.whole
    monkeypatch.setattr(passes, "whole", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory.")))
    with pytest.raises(RuntimeError):
        check_shortcuts(passes, prompt)
    monkeypatch.setattr(passes, "whole", whole)
    check_shortcuts(passes, prompt)
    assert passes.shortcut is Shortcut.PREFIX


def test_a_prefix_that_does_not_fit_into_the_memory_is_run_in_pieces(
    mini: Mini, sequences: Sequences, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama")), after_the_prefix(sequences, [3, 3])
    of_sets, pieces = SharedPrefix.of_sets, list[int]()

    def small(self: SharedPrefix, layer: int, head_sets: Any) -> Any:
        if len(head_sets) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        pieces.append(len(head_sets))
        return of_sets(self, layer, head_sets)

    settings: dict[str, Any] = {"token_budget": 400}
    expected = ships(model, prompts, Ablation(Kind.SCALING), **settings, parts=Parts(tmp_path / "whole"))
    monkeypatch.setattr(SharedPrefix, "of_sets", small)
    found = ships(model, prompts, Ablation(Kind.SCALING), **settings, parts=Parts(tmp_path / "pieces"))
    assert pieces == [2] * 8, "two of the self-check, and two for each layer"
    torch.testing.assert_close(torch.tensor(found["score"]), torch.tensor(expected["score"]), rtol=1e-3, atol=1e-6)
