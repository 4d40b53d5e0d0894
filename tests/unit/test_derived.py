"""Derived models: attention of one model, all else of another, as exchanging the tensors by hand gives it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from safetyheads.config.load import load_config
from safetyheads.costs.model_sizes import model_shape
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.attention_weights import take_attention
from safetyheads.models.derived import check_pair, recipe
from safetyheads.models.load import load

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    # sizes, and how the family calls its attention module
    "llama": (GROUPED, ".self_attn."),
    "qwen2": (GROUPED, ".self_attn."),  # biases
    "qwen3": (GROUPED | {"head_dim": 8}, ".self_attn."),  # norms of queries and keys
    "phi3": (GROUPED, ".self_attn."),  # one projection for query, key and value
    "gpt_neox": (SMALL, ".attention."),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 60, "n_positions": 64}, ".attn."),
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Save a model of random weights."""

    def save(name: str, family: str, seed: int, **changes: Any) -> Path:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family][0] | changes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)  # biases and norms too
        model.save_pretrained(tmp_path / name, max_shard_size="10KB")
        return tmp_path / name

    return save


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_the_first_models_and_all_else_the_seconds(family: str, dtype: str, make: Make) -> None:
    first, second = (make(f"model-{seed}", family, seed) for seed in (1, 2))
    check_pair(("one", first), ("two", second))
    attention, rest, mixed = (load(folder, dtype=dtype, device="cpu") for folder in (first, second, second))
    take_attention(mixed, first)
    expected = {
        name: attention.state_dict()[name] if FAMILIES[family][1] in name else tensor
        for name, tensor in rest.state_dict().items()
    }
    found = mixed.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    exchanged = [name for name in expected if not torch.equal(expected[name], rest.state_dict()[name])]
    assert {name.split(FAMILIES[family][1])[0] for name in exchanged} == {
        name.split(FAMILIES[family][1])[0] for name in expected if FAMILIES[family][1] in name
    }
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    rest.load_state_dict(expected)
    assert torch.equal(mixed(ids).logits, rest(ids).logits)


def test_a_model_with_its_own_attention_is_itself(make: Make) -> None:
    folder = make("model", "llama", 1)
    plain, mixed = (load(folder, device="cpu") for _ in range(2))
    take_attention(mixed, folder)
    assert all(torch.equal(tensor, mixed.state_dict()[name]) for name, tensor in plain.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4 and 2"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3 and 2"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_parameters is"),
    ],
)
def test_models_of_other_shapes_do_not_mix(changes: dict[str, Any], said: str, make: Make) -> None:
    first, second = make("first", "llama", 1, **changes), make("second", "llama", 2)
    with pytest.raises(SafetyHeadsError, match=said) as error:
        check_pair(("one", first), ("two", second))
    assert "'one'" in str(error.value) and "'two'" in str(error.value)


def test_models_of_other_classes_do_not_mix(make: Make) -> None:
    with pytest.raises(
        SafetyHeadsError, match="'one', a LlamaForCausalLM, does not fit into 'two', a Qwen2ForCausalLM"
    ):
        check_pair(("one", make("first", "llama", 1)), ("two", make("second", "qwen2", 2)))


def test_another_vocabulary_other_ends_and_keys_of_no_meaning_may_mix(make: Make) -> None:
    first = make("first", "llama", 1, vocab_size=61, eos_token_id=5, trained_by="us")
    check_pair(("one", first), ("two", make("second", "llama", 2)))


def test_a_missing_weight_is_named(make: Make, tmp_path: Path) -> None:
    mixed, other = load(make("model", "llama", 1), device="cpu"), make("other", "gpt2", 1)
    with pytest.raises(SafetyHeadsError, match="no weight 'model.layers.0.self_attn.q_proj.weight'"):
        take_attention(mixed, other)


def test_quantised_attention_is_refused_not_copied_without_its_scales(make: Make) -> None:
    mixed, folder = load(make("model", "llama", 1), device="cpu"), make("other", "llama", 2)
    key = "model.layers.1.self_attn.q_proj.weight"
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        save_file({k: t.to(torch.float8_e4m3fn) if k == key else t for k, t in tensors.items()}, path)
    with pytest.raises(SafetyHeadsError, match=f"'{key}' is quantised in .+float8_e4m3fn"):
        take_attention(mixed, folder)


def test_the_recipe_names_both_with_their_files() -> None:
    first = {"model": "a", "repo": "x/a", "revision": "1", "files": {"w": "11"}, "layers": 2, "eos_token_ids": [1]}
    second = {"model": "b", "repo": None, "revision": None, "files": {"w": "22"}, "layers": 2, "eos_token_ids": [2]}
    found = recipe("mixed", first, second)
    assert found["attention_from"] == {"model": "a", "repo": "x/a", "revision": "1"}
    assert found["rest_from"] == {"model": "b", "repo": None, "revision": None}
    assert found["files"] == {"attention_from/w": "11", "rest_from/w": "22"}
    assert (found["model"], found["repo"], found["eos_token_ids"]) == ("mixed", None, [2])


def study(models_: dict[str, Any]) -> dict[str, Any]:
    listed = {
        "models": ["mixed"],
        "datasets": ["advbench"],
        "templates": ["direct"],
        "ablations": ["scaling"],
        "plans": ["single"],
        "decodings": ["greedy"],
        "judges": ["paper"],
    }
    return {"models": models_, "studies": {"main": listed}}


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"attention_from": "llama-2-7b"}, "found none of them; allowed: exactly one of path, repo, demo, rest_from"),
        ({"rest_from": "llama-2-7b"}, "found rest_from without attention_from; allowed: both"),
        (
            {"attention_from": "llama-2-7", "rest_from": "llama-2-7b-chat"},
            "models.mixed.attention_from: found 'llama-2-7', which is not known",
        ),
        (
            {"attention_from": "llama-2-7b", "rest_from": "other"},
            "models.mixed.rest_from: found 'other', which is derived itself",
        ),
        ({"attention_from": "mixed", "rest_from": "llama-2-7b"}, "found 'mixed', which is derived itself"),
        (
            {"attention_from": "llama-2-7b", "rest_from": "small"},
            "models.mixed: found models of 32 layers of 32 heads and 4 layers of 8 heads; allowed: two models of",
        ),
        (
            {"attention_from": "llama-2-7b", "rest_from": "gone"},
            "models.gone.path: found '/nowhere', where there is no folder",
        ),
        (
            {"attention_from": "llama-2-7b", "rest_from": "llama-2-7b-chat", "path": "/nowhere"},
            "found path and rest_from; allowed: exactly one",
        ),
    ],
)
def test_what_cannot_be_derived_is_told_before_any_job(declared: dict[str, Any], said: str) -> None:
    other = {"attention_from": "llama-2-7b", "rest_from": "llama-2-7b-chat"}
    with pytest.raises(SafetyHeadsError) as error:
        load_config(study({"mixed": declared, "other": other, "gone": {"path": "/nowhere"}, "small": {"demo": True}}))
    assert said in str(error.value)


def test_a_derived_model_has_grid_size_and_chat_template_of_its_rest() -> None:
    declared = {"mixed": {"attention_from": "llama-2-7b", "rest_from": "vicuna-7b-v1.5"}}
    config = load_config(study(declared))
    assert config.grid("mixed") == (32, 32)
    assert model_shape(config, "mixed", Path()) == model_shape(config, "vicuna-7b-v1.5", Path())
    assert config.chat_template("mixed") == config.model("vicuna-7b-v1.5").chat_template
    assert config.chat_template("llama-2-7b") is None
