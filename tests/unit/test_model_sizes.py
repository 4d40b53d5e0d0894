"""Sizes of models: what config.json says is what transformers builds."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from safetyheads.config.load import CatalogueModel, catalogue
from safetyheads.costs.model_sizes import local_grid, local_size

FAMILIES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
    *("gpt_neox", "gpt2", "opt", "olmo2", "granite", "starcoder2", "stablelm", "cohere", "smollm3", "glm4", "gpt_oss"),
    "deepseek_v3",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_that_transformers_makes(family: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(family, num_hidden_layers=5)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    size = local_size(tmp_path)
    assert size is not None
    assert size.parameters == pytest.approx(model.num_parameters(), rel=0.03)  # norms, biases, positions are left out
    assert local_grid(tmp_path) == (size.shape.layers, size.shape.heads) == (5, config.num_attention_heads)


def test_a_token_meets_only_the_experts_that_it_uses(tmp_path: Path) -> None:
    config = AutoConfig.for_model("mixtral", num_hidden_layers=2, num_local_experts=8, num_experts_per_tok=2)
    config.save_pretrained(tmp_path)
    size = local_size(tmp_path)
    assert size is not None
    assert size.shape.intermediate == 2 * config.intermediate_size
    resting = 2 * 6 * 3 * config.hidden_size * config.intermediate_size
    assert size.parameters == size.shape.weights + size.shape.output + resting


def test_the_text_model_of_several_counts(tmp_path: Path) -> None:
    text = AutoConfig.for_model("gemma3_text", num_hidden_layers=2).to_dict()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    size = local_size(tmp_path)
    assert size is not None
    assert size.shape.layers == 2
    assert size.shape.head_size == text["head_dim"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_hidden_layers": 4}', '{"num_hidden_layers": "4"}'])
def test_what_config_json_does_not_say_is_unknown(text: str, tmp_path: Path) -> None:
    assert local_size(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    assert local_size(tmp_path) is None
    assert local_grid(tmp_path) is None


def test_the_catalogue_names_sizes_by_their_billions() -> None:
    """The name of a model says how many billion parameters it has; phi-3-mini has 3.8."""
    billions = {"phi-3-mini": 3.8, "gemma-2-9b-it": 9.2, "qwen2.5-7b-instruct": 7.6}
    named = {"llama-2-7b": 6.7, "llama-2-7b-chat": 6.7, "vicuna-7b-v1.5": 6.7, "llama-3-8b-instruct": 8.0}
    named |= billions | {"mistral-7b-instruct-v0.2": 7.2}
    entries = catalogue("models")
    assert set(named) == set(entries)
    for name, entry in entries.items():
        assert isinstance(entry, CatalogueModel)
        assert entry.size.parameters == pytest.approx(named[name] * 1e9, rel=0.01)
