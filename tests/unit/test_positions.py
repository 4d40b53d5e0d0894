"""Positions: context lengths as published, and rows of long and dynamic rope as transformers makes each one alone."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_models import SIZE
from test_generation import completed
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablated import ablated
from safetyheads.engine.ablation import install
from safetyheads.engine.batches import padded
from safetyheads.engine.context import context_length
from safetyheads.engine.divergence import divergence
from safetyheads.engine.generation import Row
from safetyheads.engine.positions import Border, borders, probes, side
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, Kind, all_heads
from safetyheads.plans import Decoding

FACTORS = {"short_factor": [1.0] * 48, "long_factor": [8.0] * 48}
PHI3 = {"model_type": "phi3", "original_max_position_embeddings": 4096, "hidden_size": 3072, "num_attention_heads": 32}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
QWEN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
DEEPSEEK = {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
GEMMA3 = {"model_type": "gemma3_text", "max_position_embeddings": 131072, "rope_theta": 1e6}
OSS = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}

PUBLISHED: dict[str, tuple[dict[str, Any], int | None]] = {
    "Llama-2": ({"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": None}, 4096),
    "Llama-3.1": (
        {
            "model_type": "llama",
            "max_position_embeddings": 131072,
            "rope_scaling": LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 8192},
        },
        131072,
    ),
    "CodeLlama": ({"model_type": "llama", "max_position_embeddings": 16384, "rope_theta": 1e6}, 16384),
    "Vicuna-1.5-16k": (
        {
            "model_type": "llama",
            "max_position_embeddings": 4096,
            "max_sequence_length": 16384,
            "rope_scaling": {"factor": 4.0, "type": "linear"},
        },
        16384,
    ),
    "LongChat-1.5-32k": (
        {"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": {"factor": 8.0, "type": "linear"}},
        32768,
    ),
    "Llama with dynamic rope": (
        {"model_type": "llama", "max_position_embeddings": 2048, "rope_scaling": {"factor": 2.0, "type": "dynamic"}},
        4096,
    ),
    "Qwen2.5": ({"model_type": "qwen2", "max_position_embeddings": 32768}, 32768),
    "Qwen2.5 with yarn": ({"model_type": "qwen2", "max_position_embeddings": 32768, "rope_scaling": QWEN}, 131072),
    "Qwen3 with yarn": ({"model_type": "qwen3", "max_position_embeddings": 40960, "rope_scaling": QWEN}, 131072),
    "yarn without its original length": (
        {"model_type": "qwen2", "max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        131072,
    ),
    "DeepSeek-V3": (
        {"model_type": "deepseek_v3", "max_position_embeddings": 163840, "rope_scaling": DEEPSEEK},
        163840,
    ),
    "GPT-OSS": ({"model_type": "gpt_oss", "max_position_embeddings": 131072, "rope_scaling": OSS}, 131072),
    "GPT-OSS saved by transformers 5": (
        {"model_type": "gpt_oss", "max_position_embeddings": 131072, "rope_parameters": OSS | {"rope_theta": 150000}},
        131072,
    ),
    "SmolLM3": ({"model_type": "smollm3", "max_position_embeddings": 65536, "rope_scaling": None}, 65536),
    "SmolLM3 with yarn": (
        {
            "model_type": "smollm3",
            "max_position_embeddings": 65536,
            "rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 65536},
        },
        131072,
    ),
    "Phi-3-mini-4k": (PHI3 | {"max_position_embeddings": 4096, "rope_scaling": None}, 4096),
    "Phi-3-mini-128k and Phi-3.5-mini": (
        PHI3 | {"max_position_embeddings": 131072, "rope_scaling": FACTORS | {"type": "longrope"}},
        131072,
    ),
    "Gemma-3-1b": (GEMMA3 | {"max_position_embeddings": 32768, "rope_scaling": None}, 32768),
    "Gemma-3-4b": (GEMMA3 | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}, 131072),
    "Gemma-3-4b, with its towers": (
        {"model_type": "gemma3", "text_config": GEMMA3 | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}},
        131072,
    ),
    "Gemma 3 saved by transformers 5": (
        GEMMA3
        | {
            "rope_parameters": {
                "full_attention": {"factor": 8.0, "rope_type": "linear", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        131072,
    ),
    "Gemma 3 with dynamic rope in full attention": (
        GEMMA3
        | {
            "rope_parameters": {
                "full_attention": {"factor": 2.0, "rope_type": "dynamic", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        262144,
    ),
    "Olmo-3": (
        {
            "model_type": "olmo3",
            "max_position_embeddings": 65536,
            "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192},
        },
        65536,
    ),
    "Command-R": ({"model_type": "cohere", "max_position_embeddings": 8192, "model_max_length": 131072}, 131072),
    "GPT-2": ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 1024}, 1024),
    "OPT": ({"model_type": "opt", "max_position_embeddings": 2048}, 2048),
    "OPT whose rope was scaled, which it has not": (
        {"model_type": "opt", "max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 4.0}},
        2048,
    ),
    "MPT": ({"model_type": "mpt", "max_seq_len": 8192}, 8192),
    "BLOOM": ({"model_type": "bloom", "seq_length": 2048}, 2048),
    "Mamba": ({"model_type": "mamba"}, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_context_length_is_that_of_the_published_configuration(name: str, tmp_path: Path) -> None:
    written, expected = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert context_length(AutoConfig.from_pretrained(tmp_path)) == expected


def test_only_long_and_dynamic_rope_have_borders(tmp_path: Path) -> None:
    found = {}
    for name, (written, _) in PUBLISHED.items():
        (tmp_path / "config.json").write_text(json.dumps(written))
        if of := borders(AutoConfig.from_pretrained(tmp_path)):
            found[name] = of
    assert found == {
        "Phi-3-mini-128k and Phi-3.5-mini": (Border(4096, stretching=False),),
        "Llama with dynamic rope": (Border(2048, stretching=True),),
        "Gemma 3 with dynamic rope in full attention": (Border(131072, stretching=True),),
    }


BORDER, NEW = 24, 6
SIDES = {"below": (5, 9, 19), "beyond": (25, 31, 31, 40), "both": (5, 9, 19, 25, 31, 31, 40)}
"""Prompts' lengths. With 6 new tokens, of which the last is not fed to the model, 19 ends at the border."""

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [6.0] * 4}
PARTIAL = {**LONG, "short_factor": [1.0] * 3, "long_factor": [6.0] * 3, "partial_rotary_factor": 0.75}
ORIGINAL = {"original_max_position_embeddings": BORDER}
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0}
LAYERS = {
    "head_dim": 8,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
THETA = {"rope_theta": 1e4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Phi-3, long rope": ("phi3", {"max_position_embeddings": 192, "rope_scaling": LONG} | ORIGINAL),
    "Phi-4-mini, long rope of a part of each head": (
        "phi3",
        {"max_position_embeddings": 192, "rope_scaling": PARTIAL, "partial_rotary_factor": 0.75} | ORIGINAL,
    ),
    "PhiMoE, long rope with experts": (
        "phimoe",
        {
            "max_position_embeddings": 192,
            "rope_scaling": {**LONG, **ORIGINAL, "short_mscale": 1.2, "long_mscale": 2.0},
            **EXPERTS,
        },
    ),
    "Llama, long rope as in MiniCPM": ("llama", {"max_position_embeddings": 192, "rope_scaling": LONG | ORIGINAL}),
    "Llama, dynamic": ("llama", {"max_position_embeddings": BORDER, "rope_scaling": DYNAMIC}),
    "Gemma 3, dynamic in full attention": (
        "gemma3_text",
        {
            "max_position_embeddings": BORDER,
            "rope_parameters": {
                "full_attention": DYNAMIC | THETA,
                "sliding_attention": {"rope_type": "default"} | THETA,
            },
            **LAYERS,
        },
    ),
    "Gemma 3, long rope in full attention": (
        "gemma3_text",
        {
            "max_position_embeddings": 192,
            "rope_parameters": {
                "full_attention": LONG | ORIGINAL | THETA,
                "sliding_attention": {"rope_type": "default"} | THETA,
            },
            **LAYERS,
        },
    ),
}


@pytest.fixture(scope="module", params=FAMILIES)
def fresh(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A random model that has seen no text yet: copy it, because dynamic rope remembers what it has seen."""
    kind, changes = FAMILIES[request.param]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZE | changes)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(1.0 + 0.2 * torch.randn_like(weight) if weight.dim() == 1 else 0.3 * torch.randn_like(weight))
    return model.eval().requires_grad_(False)


def prompts(lengths: tuple[int, ...]) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 97, (length,), generator=generator).tolist() for length in lengths]


HEADS = [(), (Head(1, 1), Head(2, 3)), (Head(2, 0), Head(2, 1))]


def by_transformers(fresh: PreTrainedModel, ids: list[int], heads: tuple[Head, ...]) -> list[int]:
    """What `generate` says to one prompt alone, without padding, in a model that has seen no other text."""
    model = deepcopy(fresh)
    with ablated(model, heads, kind="scaling"):
        model.generation_config.eos_token_id = None
        made = model.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    return [int(token) for token in made[0, len(ids) :]]


@pytest.mark.parametrize("which", SIDES)
def test_completions_of_a_mixed_batch_are_those_that_transformers_makes_alone(
    which: str, fresh: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [Row(f"q-{n}", ids, heads) for n, ids in enumerate(prompts(SIDES[which])) for heads in HEADS]
    expected = [by_transformers(fresh, list(row.token_ids), row.heads) for row in rows]
    made = completed(
        install(deepcopy(fresh)), rows, Decoding(max_new_tokens=NEW), tmp_path, ablation=Ablation(Kind.SCALING)
    )
    assert [made[index].token_ids for index in range(len(rows))] == expected
    assert [record for record in caplog.records if record.name.startswith("safetyheads")] == []


@pytest.mark.parametrize("which", SIDES)
def test_scores_are_those_of_each_prompt_alone(which: str, fresh: PreTrainedModel, tmp_path: Path) -> None:
    ids, ablation = prompts(SIDES[which]), Ablation(Kind.SCALING)
    expected = []
    for prompt in ids:
        logits = []
        for heads in [[], *([head] for head in all_heads(3, 4))]:
            model = deepcopy(fresh)
            with ablated(model, heads, kind="scaling"):
                logits.append(model(torch.tensor([prompt])).logits[0, -1])
        expected.append(divergence(logits[0], torch.stack(logits[1:])))
    table = pd.DataFrame({"query_id": [f"q-{n}" for n in range(len(ids))], "token_ids": ids})
    # The longest prompts come first, so that a model which remembers them would show it in the others.
    scores = ships(install(deepcopy(fresh)), table, ablation, token_budget=400, parts=Parts(tmp_path / "ships"))
    found = torch.tensor(scores["score"].to_numpy()).view(len(ids), -1)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-6)


def test_frequencies_beyond_the_border_are_others(fresh: PreTrainedModel) -> None:
    (long,) = prompts((40,))
    stretched = fresh.config.get_text_config().rope_parameters
    plain = deepcopy(fresh.config)
    for name, value in ((None, stretched), *stretched.items()):
        if isinstance(value, dict) and value.get("rope_type") in ("longrope", "dynamic"):
            rope = {"rope_type": "default", "rope_theta": value["rope_theta"]}
            rope |= {key: value[key] for key in ("partial_rotary_factor",) if key in value}
            plain.rope_parameters = rope if name is None else {**stretched, name: rope}
    other = type(fresh)(plain).eval()
    other.load_state_dict(fresh.state_dict())
    ids = torch.tensor([long])
    assert (deepcopy(fresh)(ids).logits - other(ids).logits).abs().max() > 0.01


@pytest.mark.parametrize(("length", "new", "refused"), [(19, 6, False), (19, 7, True), (24, 1, False), (24, 2, True)])
def test_only_a_completion_that_crosses_the_border_is_refused_before_anything_is_computed(
    length: int,
    new: int,
    refused: bool,
    fresh: PreTrainedModel,
    completions: Callable[..., pd.DataFrame],
) -> None:
    model = install(deepcopy(fresh))
    rows = pd.DataFrame({"query_id": ["q-0", "q-1", "q-2"], "token_ids": prompts((3, length, 30))})
    given: dict[str, Any] = {"context_length": context_length(model.config), "model": model, "prompts": rows}
    given |= {"eos_token_ids": list(range(2, 60)), "token_budget": 40}
    if not refused:
        completions("none", Decoding(max_new_tokens=new), **given)
        return
    model.register_forward_pre_hook(lambda *_: pytest.fail("something was computed"))
    message = rf"prompt of q-1 has {length} tokens; with {new} new ones .* at {BORDER} tokens.*`max_new_tokens` to "
    with pytest.raises(SafetyHeadsError, match=rf"{message}{BORDER + 1 - length} or less.*longer than {BORDER} tokens"):
        completions("none", Decoding(max_new_tokens=new), **given)


def test_without_a_border_batches_are_those_of_the_lengths_alone() -> None:
    rows = prompts((3, 40, 25, 24, 9, 31, 31))
    assert padded(rows, 6, 100, lambda tokens: side(tokens, ())) == padded(rows, 6, 100)


def test_batches_hold_one_side_of_each_border_and_one_length_beyond_one_that_stretches() -> None:
    rows = prompts((3, 40, 25, 24, 9, 31, 31, 50))
    batches = padded(rows, 6, 1000, lambda tokens: side(tokens, (Border(24, False), Border(30, True))))
    assert [[len(rows[index]) for index in batch] for batch in batches] == [[50], [40], [31, 31], [25], [24, 9, 3]]


def test_probing_texts_stay_below_the_border_and_have_two_lengths() -> None:
    of = (Border(24, stretching=False),)
    for lengths in ((5, 9), (5, 23), (5, 24), (23, 24), (30, 40), (30, 30), (24,)):
        rows = prompts(lengths)
        shortest, longest = probes(rows, of)
        assert len(longest) + 1 <= 24
        assert len(shortest) < len(longest)
        assert probes(rows, ()) == (min(rows, key=len), max(rows, key=len))
