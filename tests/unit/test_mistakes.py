"""Mistakes in the configuration and in its files: one message names the culprit and what would be right.

How such a message reaches the user is shown in tests/workflow/test_errors.py.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from project import DATA, Settings, small_study
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads import prompts
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.config.load import load_config
from safetyheads.datasets import read_queries
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Kind
from safetyheads.models.describe import describe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and queries, in which small_study may run."""
    shutil.copytree(DATA / "tiny_a", tmp_path / "tiny_a", copy_function=shutil.copy)
    lines = (DATA / "queries.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "neutral.csv").write_text("".join(lines[:4]), encoding="utf-8")
    return tmp_path


def plans(*names: str) -> Callable[[Settings], None]:
    return lambda settings: settings["studies"]["main"].update(plans=list(names))


CONFIGURATIONS: dict[str, tuple[Callable[[Settings], object], list[str]]] = {
    "an unknown key": (
        lambda settings: settings["decodings"]["short"].update(max_tokens=9),
        ["decodings.short", "'max_tokens'", "max_new_tokens"],
    ),
    "an unknown section": (
        lambda settings: settings.update(modles={}),
        ["'modles'", "Did you mean 'models'?"],
    ),
    "a misspelt model": (
        lambda settings: settings["studies"]["main"].update(models=["tiyn"]),
        ["studies.main.models[0]", "'tiyn'", "Did you mean 'tiny'?"],
    ),
    "a data set file that is missing": (
        lambda settings: settings["datasets"]["neutral"].update(path="neutrl.csv"),
        ["datasets.neutral.path", "'neutrl.csv'", "no file"],
    ),
    "a model folder that is missing": (
        lambda settings: settings["models"]["tiny"].update(path="tiny_b"),
        ["models.tiny.path", "'tiny_b'", "no folder"],
    ),
    "more heads than the model has": (
        plans("ships-99"),
        ["studies.main.plans[0]", "'ships-99'", "'tiny'", "at most 16"],
    ),
    "more heads than Sahara's steps": (
        lambda settings: (
            settings["studies"]["main"]["plans"].append("sahara-5") or settings.update(attribution={"steps": 3})
        ),
        ["studies.main.plans[4]", "'sahara-5'", "attribution.steps: 3", "at most sahara-3"],
    ),
    "a head that the model does not have": (
        lambda settings: settings["head_sets"].update(mine=["L09H00"]),
        ["'mine'", "L09H00", "L00H00 to L03H03"],
    ),
    "a template without a place for the query": (
        lambda settings: settings["templates"]["plainly"].update(text="Query: {qurey}"),
        ["templates.plainly", "{query}"],
    ),
}


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_a_mistake_in_the_configuration_is_one_line_that_says_what_is_right(folder: Path, mistake: str) -> None:
    change, said = CONFIGURATIONS[mistake]
    settings = small_study()
    assert load_config(settings, folder)
    change(settings)
    with pytest.raises(SafetyHeadsError) as error:
        load_config(settings, folder)
    message = str(error.value)
    assert message.startswith("The configuration has a problem")
    assert len(message.splitlines()) == 2
    assert [text for text in said if text not in message] == []


def read(folder: Path, query: str = "input") -> object:
    return read_queries(folder / "neutral.csv", dataset="neutral", format="csv", query=query)


DATASETS: dict[str, tuple[str | None, str, list[str]]] = {
    "an empty file": ("", "input", ["neutral.csv is empty", "at least one query"]),
    "no rows": ("input\n", "input", ["neutral.csv holds no queries"]),
    "no such column": (
        None,
        "inptu",
        ["neutral.csv has no column 'inptu'", "Its columns: 'input'", "Did you mean 'input'?"],
    ),
}


@pytest.mark.parametrize("mistake", DATASETS)
def test_a_mistake_in_a_data_set_file_is_named(folder: Path, mistake: str) -> None:
    text, query, said = DATASETS[mistake]
    if text is not None:
        (folder / "neutral.csv").write_text(text)
    with pytest.raises(SafetyHeadsError) as error:
        read(folder, query)
    assert [words for words in said if words not in str(error.value)] == []


def falcon(folder: Path) -> None:
    import torch
    from transformers import FalconConfig, FalconForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = folder / "tiny_a"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    (model / "generation_config.json").unlink()
    config = FalconConfig(vocab_size=512, hidden_size=32, num_hidden_layers=4, num_attention_heads=4)
    FalconForCausalLM(config).save_pretrained(model)
    tokenizer.save_pretrained(model)


def pickled(folder: Path) -> None:
    weights = folder / "tiny_a" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))


def context(length: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "tiny_a" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": length}))

    return apply


MODELS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no safetensors": (pickled, ["tiny_a", "safetensors"]),
    "a cut off file of weights": (
        lambda folder: (folder / "tiny_a" / "model.safetensors").write_bytes(b"cut"),
        ["tiny_a/model.safetensors is not a whole safetensors file"],
    ),
    "outside the attention interface": (falcon, ["tiny_a", "FalconForCausalLM", "attention interface", "Llama"]),
}


@pytest.mark.parametrize("mistake", MODELS)
def test_a_model_that_cannot_be_measured_is_refused_when_it_is_described(folder: Path, mistake: str) -> None:
    arrange, said = MODELS[mistake]
    arrange(folder)
    with pytest.raises(SafetyHeadsError) as error:
        describe(folder / "tiny_a", model="tiny", source="path")
    assert [words for words in said if words not in str(error.value)] == []


def test_a_prompt_that_is_longer_than_the_context_is_named(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    context(8)(folder)
    length = describe(folder / "tiny_a", model="tiny", source="path")["context_length"]
    queries = read(folder)
    assert isinstance(queries, pd.DataFrame)
    with pytest.raises(SafetyHeadsError, match=r"neutral-0000 has 14 tokens.*context is 8.*Shorten"):
        prompts.build(queries, {"text": "{query}"}, tokenizer, length)


def test_sahara_needs_more_prompts_than_vectors(tiny_a: PreTrainedModel, tmp_path: Path) -> None:
    one = pd.DataFrame({"query_id": ["q"], "token_ids": [[1, 5, 6]]})
    with pytest.raises(SafetyHeadsError, match="rank 1 with 1 prompts"):
        sahara(
            *(tiny_a, one, Ablation(Kind.SCALING)),
            **{
                "steps": 1,
                "rank": 1,
                "representation": "final_norm",
                "token_budget": 64,
                "parts": Parts(tmp_path / "x"),
            },
        )
