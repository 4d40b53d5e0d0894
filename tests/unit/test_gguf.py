"""A model's folder made of a GGUF file is the model that the file was made of, and messages say what cannot be read."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from safetyheads.config.local_files import model_folder
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe
from safetyheads.models.gguf import convert
from safetyheads.models.load import load
from safetyheads.report.tables import models

gguf = pytest.importorskip("gguf")

TINY = Path(__file__).parents[1] / "data" / "tiny_a"
TEMPLATE = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
NAMES = {
    **{"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"},
    "lm_head.weight": "output.weight",
}
OF_LAYER = {
    **{f"self_attn.{name}_proj.weight": f"attn_{name}.weight" for name in "qkv"},
    **{"self_attn.o_proj.weight": "attn_output.weight", "input_layernorm.weight": "attn_norm.weight"},
    **{f"mlp.{name}_proj.weight": f"ffn_{name}.weight" for name in ("gate", "up", "down")},
    "post_attention_layernorm.weight": "ffn_norm.weight",
}


def rotated(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order in which llama.cpp has them."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def written(path: Path, *, family: str = "llama", left_out: str = "") -> Path:
    """The tiny model as a GGUF file, in float32, written by llama.cpp's own package."""
    config = json.loads((TINY / "config.json").read_text())
    vocabulary = json.loads((TINY / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(vocabulary["vocab"], key=vocabulary["vocab"].get))
    writer.add_token_types([3] * 4 + [1] * (config["vocab_size"] - 4))
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in vocabulary["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weights in load_file(TINY / "model.safetensors").items():
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        own = f"blk.{layer}.{OF_LAYER[rest]}" if name.startswith("model.layers.") else NAMES[name]
        turned = (
            rotated(weights, config["num_attention_heads"])
            if own.endswith(("attn_q.weight", "attn_k.weight"))
            else weights
        )
        if own != left_out:
            writer.add_tensor(own, np.ascontiguousarray(turned))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    convert(written(place / "tiny.gguf"), place / "tiny")
    return place / "tiny"


def test_weights_and_tokenizer_are_those_of_the_model(folder: Path) -> None:
    ours, theirs = (load(place, device="cpu").state_dict() for place in (folder, TINY))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    text = "How do I bake bread? Quietly."
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(TINY)(text, add_special_tokens=False)["input_ids"]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hm"}], tokenize=False) == "[hm]"


def test_the_description_and_the_page_say_of_which_file_it_is(folder: Path) -> None:
    found = describe(folder, model="mine", source="path")
    assert found["gguf"]["file"] == "tiny.gguf" and found["gguf"]["types"] == {"F32": 39}
    assert len(found["gguf"]["sha256"]) == 64 and "gguf" not in describe(TINY, model="mine", source="path")
    data: Any = SimpleNamespace(models={"mine": found}, measured=lambda section: ["mine"])
    assert "The weights of mine are those of tiny.gguf (39 tensors F32)" in models(data).note


def test_one_matrix_for_embedding_and_output_is_kept_as_one(tmp_path: Path) -> None:
    convert(written(tmp_path / "tied.gguf", left_out="output.weight"), tmp_path / "tied")
    assert json.loads((tmp_path / "tied" / "config.json").read_text())["tie_word_embeddings"] is True
    weights = load(tmp_path / "tied", device="cpu").state_dict()
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SafetyHeadsError, match=r"does not exist. A relative path starts at"):
        convert(tmp_path / "nothing.gguf", tmp_path / "x")
    whole = written(tmp_path / "whole.gguf")
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(SafetyHeadsError, match=r"cut.gguf is no whole GGUF file"):
        convert(tmp_path / "cut.gguf", tmp_path / "x")
    with pytest.raises(
        SafetyHeadsError, match=r"transformers cannot read .*other.gguf .*architecture rwkv6 is not supp"
    ):
        convert(written(tmp_path / "other.gguf", family="rwkv6"), tmp_path / "x")
    with pytest.raises(
        SafetyHeadsError, match=r"lacks the weights of 1 parameters, such as model.layers.2.mlp.up_proj"
    ):
        convert(written(tmp_path / "lacks.gguf", left_out="blk.2.ffn_up.weight"), tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "x").mkdir()
    with pytest.raises(SafetyHeadsError, match=r"x is there already"):
        convert(whole, tmp_path / "x")


def test_the_command_ends_with_a_message_not_with_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "safetyheads.models.gguf", str(tmp_path / "a.gguf"), str(tmp_path / "b")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr and "a.gguf does not exist" in result.stderr


def test_a_study_that_names_the_file_itself_is_told_how_to_make_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (problem,) = model_folder("models.mine", "a.gguf", tmp_path)
    assert "models.mine.path: found 'a.gguf', a file" in problem and "safetyheads.models.gguf FILE FOLDER" in problem
