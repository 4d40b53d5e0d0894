"""Sizes of models and data sets: what config.json says is what transformers builds, and every query is counted."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from test_job_costs import config
from transformers import AutoConfig, AutoModelForCausalLM

from safetyheads.config.catalogue import catalogue
from safetyheads.config.load import load_config
from safetyheads.config.local_models import local_grid
from safetyheads.costs.model_sizes import (
    DEMO,
    TYPICAL_CHARACTERS,
    local_shape,
    model_shape,
    query_count,
    sizes_of_heads,
)
from safetyheads.datasets import read_queries
from safetyheads.demo.model import _architecture, make_tokenizer
from safetyheads.errors import SafetyHeadsError

GATED = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi3"),
    *("olmo2", "granite", "stablelm", "cohere", "smollm3", "glm4", "gpt_oss"),
)
WITHOUT_GATE = ("phi", "gpt_neox", "gpt2", "opt", "starcoder2")
QUERIES = ["How do I bake bread?", 'Say "hello",\nthen wait', "naïve 你好", "the same", "the same"]


@pytest.mark.parametrize("family", [*GATED, *WITHOUT_GATE])
def test_parameters_are_those_that_transformers_makes(family: str, tmp_path: Path) -> None:
    """Norms, biases and positions are left out; an MLP without a gate counts as larger than it is."""
    settings = AutoConfig.for_model(family, num_hidden_layers=5)
    settings.save_pretrained(tmp_path)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(settings).num_parameters()
    shape = local_shape(tmp_path)
    assert shape is not None
    assert 0.97 * parameters < shape.parameters < (1.35 if family in WITHOUT_GATE else 1.03) * parameters
    assert local_grid(tmp_path) == (shape.layers, shape.heads) == (5, settings.num_attention_heads)


def test_a_token_meets_only_the_experts_that_it_uses(tmp_path: Path) -> None:
    settings = AutoConfig.for_model("mixtral", num_hidden_layers=2, num_local_experts=8, num_experts_per_tok=2)
    settings.save_pretrained(tmp_path)
    shape = local_shape(tmp_path)
    assert shape is not None
    assert shape.intermediate == 2 * settings.intermediate_size
    assert shape.resting == 2 * 6 * 3 * settings.hidden_size * settings.intermediate_size


def test_the_text_model_of_several_counts(tmp_path: Path) -> None:
    text = AutoConfig.for_model("gemma3_text", num_hidden_layers=2).to_dict()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    shape = local_shape(tmp_path)
    assert shape is not None
    assert (shape.layers, shape.head_dim) == (2, text["head_dim"])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_hidden_layers": 4}', '{"num_hidden_layers": "4"}'])
def test_what_config_json_does_not_say_is_unknown(text: str, tmp_path: Path) -> None:
    assert local_shape(tmp_path) is None
    (tmp_path / "config.json").write_text(text)
    assert local_shape(tmp_path) is None
    assert local_grid(tmp_path) is None


def test_the_catalogue_names_sizes_by_their_billions() -> None:
    """The name of a model says how many billion parameters it has; phi-3-mini has 3.8."""
    billions = {"llama-2-7b": 6.7, "llama-2-7b-chat": 6.7, "vicuna-7b-v1.5": 6.7, "llama-3-8b-instruct": 8.0}
    # What Hugging Face counts, which is more exact than the names of small models.
    billions |= {
        "smollm2-135m-instruct": 0.134515,
        "smollm2-360m-instruct": 0.361821,
        "smollm2-1.7b-instruct": 1.711376,
    }
    billions |= {"smollm3-3b": 3.075099, "qwen2.5-0.5b-instruct": 0.494033, "qwen2.5-1.5b-instruct": 1.543714}
    billions |= {"qwen2.5-coder-0.5b-instruct": 0.494033, "qwen3-0.6b": 0.596050, "qwen3-4b": 4.022468}
    billions |= {"llama-3.2-1b-instruct": 1.235814, "llama-3.2-3b-instruct": 3.212750, "gemma-3-270m-it": 0.268098}
    billions |= {"gemma-3-1b-it": 0.999886, "olmo-2-1b-instruct": 1.484917}
    billions |= {"mistral-7b-instruct-v0.2": 7.2, "qwen2.5-7b-instruct": 7.6, "gemma-2-9b-it": 9.2, "phi-3-mini": 3.8}
    assert set(billions) == set(catalogue("models"))
    for name, number in billions.items():
        shape = model_shape(config(), name, Path())
        assert shape is not None
        assert shape.parameters == pytest.approx(number * 1e9, rel=0.01)


def test_the_demo_is_as_large_as_it_is_trained(tmp_path: Path) -> None:
    _architecture(make_tokenizer()).save_pretrained(tmp_path)
    shape = local_shape(tmp_path)
    assert shape is not None
    assert DEMO.layer == shape.layer
    assert DEMO.parameters == pytest.approx(shape.parameters, rel=0.01)


def queries(path: Path, format: str, column: str | None) -> tuple[int, float] | None:
    source: dict[str, Any] = {"path": str(path), "format": format} | ({"query": column} if column else {})
    return query_count(config(datasets={"mine": source}), "mine", Path())


@pytest.mark.parametrize("format", ["csv", "jsonl", "text", "parquet"])
def test_queries_are_counted_as_they_are_read(format: str, tmp_path: Path) -> None:
    path, table = tmp_path / f"queries.{format}", pd.DataFrame({"id": range(5), "request": QUERIES})
    match format:
        case "csv":
            table.to_csv(path, index=False, encoding="utf-8-sig")
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "text":
            path.write_text("\n\n".join(QUERIES).replace(",\n", ", ") + "\n", encoding="utf-8")
        case "parquet":
            table.to_parquet(path)
    column = None if format == "text" else "request"
    lengths = read_queries(path, dataset="q", format=format, query=column)["query"].str.len()
    assert queries(path, format, column) == (5, TYPICAL_CHARACTERS if format == "parquet" else lengths.mean())


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("csv", "id,other\n1,a\n"),
        ("jsonl", '{"other": 1}\n'),
        ("jsonl", "no json\n"),
        ("text", "\n"),
        ("parquet", "no parquet"),
    ],
)
def test_a_file_without_queries_has_an_unknown_number_of_them(format: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "queries"
    path.write_text(text)
    column = None if format == "text" else "request"
    with pytest.raises(SafetyHeadsError):
        read_queries(path, dataset="q", format=format, query=column)
    assert queries(path, format, column) is None


@pytest.mark.parametrize("pilot", [{"limit": 20}, {"sample": {"n": 20}}])
def test_of_a_pilot_only_its_queries_count(pilot: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mine.json.gz").write_bytes(gzip.compress(json.dumps([{"q": "abcd"}] * 30).encode()))
    mine = {"path": str(tmp_path / "mine.json.gz"), "query": "q"}
    for source in ({"demo": "harmful"}, catalogue("datasets")["advbench"].plain(), mine):
        found = query_count(config(datasets={"x": source | pilot}), "x", Path())
        assert found is not None
        assert found[0] == 20
    few = query_count(config(datasets={"x": mine | {"limit": 31}}), "x", Path())
    assert few == (30, 4.0), "no more than there are"
    odd = config(datasets={"x": {"demo": "three", "half": "odd"}, "whole": {"demo": "three"}})
    assert query_count(odd, "x", Path())[0] == query_count(odd, "whole", Path())[0] // 2  # type: ignore[index]


def test_a_head_of_llama_is_its_slice_of_one_projection() -> None:
    study = {"models": ["llama-2-7b-chat"], "datasets": ["advbench"], "templates": ["direct"], "plans": ["none"]}
    study |= {"ablations": ["scaling"], "decodings": ["greedy"], "judges": ["paper"]}
    sizes = sizes_of_heads(load_config({"studies": {"one": study}}), ["llama-2-7b-chat"])
    assert sizes == {"llama-2-7b-chat": [4096 * 128, pytest.approx(6_738_415_616, rel=1e-4)]}
