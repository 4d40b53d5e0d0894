"""Weights are what the index says: each tensor is used, or known by name to be unneeded, or the model is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaForCausalLM,
    MixtralConfig,
    PreTrainedConfig,
)

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import check_before_weights, describe
from safetyheads.models.files import architecture
from safetyheads.models.load import load
from safetyheads.models.tensors import check_index, check_tensors, stored

INDEX = "model.safetensors.index.json"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(golden / "tiny_a", copy, copy_function=shutil.copyfile)
    return copy


def weights(folder: Path, of: Callable[[Weights], Any]) -> None:
    values = load_file(folder / "model.safetensors")
    of(values)
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})


def config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(SafetyHeadsError) as error:
        describe(folder, model="m", source="path")
    return str(error.value)


def logits(folder: Path) -> torch.Tensor:
    describe(folder, model="m", source="path")
    with torch.inference_mode():
        return load(folder, device="cpu")(torch.tensor([[1, 5, 9]])).logits


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "rope.freqs",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
        "transformer.h.0.attn.masked_bias",
        "model.layers.0.attention.bias",
        "model.embed_positions.position_ids",
        "mtp.layers.0.mlp.up_proj.weight",
    ],
)
def test_what_a_model_makes_itself_may_lie_in_its_files(folder: Path, name: str) -> None:
    before = logits(folder)
    weights(folder, lambda values: values.update({name: torch.ones(1, 1, 4, 4)}))
    assert torch.equal(logits(folder), before)


@pytest.mark.parametrize(
    "name",
    [
        "stray",
        "v_head.weight",
        "model.layers.9.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "vision_tower.blocks.0.weight",
    ],
)
def test_a_tensor_without_a_place_is_refused(folder: Path, name: str) -> None:
    weights(folder, lambda values: values.update({name: torch.ones(2)}))
    assert f"has the tensor {name!r}, for which the model that its config.json describes has no place" in refusal(
        folder
    )


def test_what_sees_may_be_left_out_of_a_model_that_sees(folder: Path) -> None:
    before = logits(folder)
    config(folder, vision_config={"hidden_size": 8})
    names = ("vision_tower.blocks.0.weight", "multi_modal_projector.weight", "model.visual.patch_embed.proj.weight")
    weights(folder, lambda values: values.update({name: torch.ones(2) for name in names}))
    assert torch.equal(logits(folder), before)


def test_layers_that_predict_further_tokens_are_unneeded_where_the_model_says_that_it_has_them(tmp_path: Path) -> None:
    small = {"hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8}
    parts = {
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
    }
    groups = {"n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "vocab_size": 64}
    made = DeepseekV3Config(**small, **heads, **parts, **groups)
    DeepseekV3ForCausalLM(made).save_pretrained(tmp_path)
    load(tmp_path, device="cpu")
    weights(tmp_path, lambda values: values.update({"model.layers.2.eh_proj.weight": torch.ones(2)}))
    config(tmp_path, num_nextn_predict_layers=1)
    load(tmp_path, device="cpu")
    config(tmp_path, num_nextn_predict_layers=0)
    with pytest.raises(SafetyHeadsError, match=r"has the tensor 'model\.layers\.2\.eh_proj\.weight', for which"):
        load(tmp_path, device="cpu")


def test_a_layer_more_is_refused_where_a_config_json_only_claims_that_it_predicts_further_tokens(folder: Path) -> None:
    weights(
        folder,
        lambda values: values.update({name.replace("layers.3", "layers.4"): x.clone() for name, x in values.items()}),
    )
    config(folder, num_nextn_predict_layers=1)
    assert "has the tensor 'model.layers.4." in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("made", "masks"),
    [
        (
            GPTNeoXConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
            ("gpt_neox.layers.0.attention.bias",),
        ),
        (
            GPT2Config(vocab_size=512, n_embd=32, n_layer=2, n_head=2),
            ("transformer.h.0.attn.bias", "h.1.attn.bias", "transformer.h.0.attn.masked_bias"),
        ),
    ],
    ids=["gpt_neox", "gpt2"],
)
def test_masks_are_no_quantised_weights_whatever_their_numbers(
    tmp_path: Path, made: PreTrainedConfig, masks: tuple[str, ...], dtype: torch.dtype
) -> None:
    AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    before = load(tmp_path, device="cpu").state_dict()
    weights(tmp_path, lambda values: values.update({name: torch.ones(1, 1, 4, 4).to(dtype) for name in masks}))
    after = load(tmp_path, device="cpu").state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_layers_beyond_those_that_config_json_counts_are_refused(folder: Path) -> None:
    config(folder, num_hidden_layers=1)
    assert "has the tensor 'model.layers.1." in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "4 bits"),
        ({"compression_config": {"format": "int-quantized"}}, "int-quantized"),
        ({"load_in_8bit": True}, "some method"),
        ({"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"language_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"quantization_method": "awq"}, "awq"),
        ({"quantization_bit": 8}, "some method"),
        ({"expert_dtype": "fp4"}, "fp4"),
        ({"use_fp8": True}, "some method"),
    ],
)
def test_every_way_of_saying_quantised_counts(folder: Path, changes: dict[str, Any], said: str) -> None:
    config(folder, **changes)
    assert f"{folder / 'config.json'}: the weights are quantised ({said})" in refusal(folder)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, "FP8"),
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "4 bits"),
        ("quant_config.json", {"quant_method": "awq"}, "awq"),
        ("QuantConfig.json", {"bits": 4}, "4 bits"),
        ("qconfig.json", {"bits": 4}, "4 bits"),
    ],
)
def test_a_file_that_says_quantised_counts_before_weights_are_there(
    folder: Path, file: str, content: dict[str, Any], said: str
) -> None:
    (folder / "model.safetensors").unlink()
    check_before_weights(folder)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(SafetyHeadsError) as error:
        check_before_weights(folder)
    assert f"{folder / file}: the weights are quantised ({said})" in str(error.value)


def test_a_cache_that_may_be_quantised_says_nothing_of_the_weights(folder: Path) -> None:
    before = logits(folder)
    told = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(told))
    unsaid = {"quantization": None, "quantization_bit": 0, "quantized": "none", "fp8_kv_cache": True}
    config(folder, quantization_config={}, load_in_8bit=False, num_quantizers=8, **unsaid)
    assert torch.equal(logits(folder), before)


SCALES = (
    "weight_scale",
    "weight_scale_inv",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "SCB",
    "weight.absmax",
    "weight_packed",
    "weight:qdata",
    "W_q",
    "Qidxs",
    "q_perm",
    "weight_quantizer._amax",
    "qscale_weight",
)


@pytest.mark.parametrize("scale", [*SCALES, "weight.quant_state.bitsandbytes__nf4", "input_scale", "experts_blocks"])
def test_scales_in_the_index_are_refused_before_weights_are_there(folder: Path, scale: str) -> None:
    (folder / "model.safetensors").unlink()
    names = {f"model.layers.0.self_attn.q_proj.{name}": "model-1.safetensors" for name in ("weight", scale)}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(SafetyHeadsError, match=r"q_proj\..*', which stands beside weights that are quantised"):
        check_before_weights(folder)


def test_scales_that_are_a_model_s_own_or_of_what_it_sees_are_none_of_quantised_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    own, seen = "language_model.model.layers.0.self_attn.q_proj.scale", "vision_tower.blocks.0.layer_scale"
    write_index(folder, {own: "model-1.safetensors", seen: "model-1.safetensors"})
    config(folder, vision_config={"hidden_size": 8})

    class Scaled(LlamaForCausalLM):
        def __init__(self, made: PreTrainedConfig) -> None:
            super().__init__(made)
            self.model.layers[0].self_attn.q_proj.scale = torch.nn.Parameter(torch.ones(1))

    made, class_ = architecture(folder)
    names = {own, seen}
    check_index("The model", names, made, Scaled, senses=True)
    with pytest.raises(SafetyHeadsError, match=r"has 'vision_tower\.blocks\.0\.layer_scale', which stands beside"):
        check_index("The model", names, made, Scaled)
    with pytest.raises(SafetyHeadsError, match=r"has 'language_model.*q_proj\.scale', which stands beside"):
        check_index("The model", names, made, class_, senses=True)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32, torch.bool])
def test_numbers_that_are_no_floats_of_16_bits_or_more_are_refused(folder: Path, dtype: torch.dtype) -> None:
    def quantise(values: Weights) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        values[name] = values[name].to(dtype)

    weights(folder, quantise)
    assert "has 'model.layers.0.self_attn.q_proj.weight' as " in refusal(folder)


def test_64_bits_are_as_good_as_32(folder: Path) -> None:
    before = logits(folder)
    weights(folder, lambda values: values.update({name: value.double() for name, value in values.items()}))
    assert torch.equal(logits(folder), before)


def split(folder: Path) -> dict[str, str]:
    values = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {name: f"model-{place % 2}.safetensors" for place, name in enumerate(sorted(values))}
    for file in ("model-0.safetensors", "model-1.safetensors"):
        own = {name: values[name] for name in values if index[name] == file}
        save_file(own, folder / file, metadata={"format": "pt"})
    return index


def write_index(folder: Path, index: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_an_index_that_does_not_name_a_tensor_is_another_s(folder: Path) -> None:
    index = split(folder)
    write_index(folder, index)
    describe(folder, model="m", source="path")
    write_index(folder, {name: file for name, file in index.items() if name != "model.norm.weight"})
    assert f"the tensor 'model.norm.weight', which {INDEX} does not name" in refusal(folder)


def test_an_index_may_name_a_tied_output_layer_that_is_not_in_the_files(folder: Path) -> None:
    config(folder, tie_word_embeddings=True)
    weights(folder, lambda values: values.pop("lm_head.weight"))
    before = logits(folder)
    write_index(folder, split(folder) | {"lm_head.weight": "model-0.safetensors"})
    assert torch.equal(logits(folder), before)
    config(folder, tie_word_embeddings=False)
    assert "missing or of another shape (lm_head.weight)" in refusal(folder)


@pytest.mark.parametrize("file", ["../model-0.safetensors", "/model-0.safetensors", "in/model-0.safetensors", 7, None])
def test_an_index_names_files_that_lie_beside_it(folder: Path, file: Any) -> None:
    index = split(folder)
    for place in (folder.parent, folder / "in"):
        place.mkdir(exist_ok=True)
        shutil.copyfile(folder / "model-0.safetensors", place / "model-0.safetensors")
    write_index(folder, index | {"lm_head.weight": file})
    assert f"says that the tensor 'lm_head.weight' is in {file!r}. Allowed is the name" in refusal(folder)


@pytest.mark.parametrize("places", [{}, [], None, "model-0.safetensors"], ids=str)
def test_an_index_that_names_no_tensors_is_none(folder: Path, places: Any) -> None:
    split(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    assert f"{INDEX} has no `weight_map` that names the file of each tensor" in refusal(folder)


def test_a_single_file_beside_those_of_the_index_is_refused_and_an_index_without_them_is_not(folder: Path) -> None:
    before = logits(folder)
    single = (folder / "model.safetensors").read_bytes()
    write_index(folder, split(folder))
    (folder / "model.safetensors").write_bytes(single)
    assert f"has model.safetensors, and {INDEX} names other files that are there (model-0." in refusal(folder)
    for shard in folder.glob("model-?.safetensors"):
        shard.unlink()
    assert torch.equal(logits(folder), before)


def lost(values: Weights, name: str) -> None:
    del values[name]


def smaller(values: Weights, name: str) -> None:
    values[name] = torch.ones(3, 3)


@pytest.mark.parametrize(("damage", "said"), [(lost, "there is no {!r}"), (smaller, "{!r} is (3, 3), and (16, 32)")])
def test_an_expert_that_the_others_do_not_fit_is_named(
    tmp_path: Path, damage: Callable[[Weights, str], None], said: str
) -> None:
    size = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 64}
    made = MixtralConfig(**size, num_attention_heads=2, num_key_value_heads=2, num_local_experts=4)
    AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    name = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    weights(tmp_path, lambda values: damage(values, name))
    with pytest.raises(SafetyHeadsError) as error:
        load(tmp_path, device="cpu")
    assert f"the tensors of experts, which are joined to one, do not fit together: {said.format(name)}" in str(
        error.value
    )


def test_an_output_layer_of_its_own_counts_although_config_json_says_tied(folder: Path) -> None:
    before = logits(folder)
    config(folder, tie_word_embeddings=True)
    assert torch.equal(logits(folder), before)
    own = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        assert torch.allclose(own(torch.tensor([[1, 5, 9]])).logits, before, atol=1e-5)


def test_a_tied_output_layer_may_be_left_out_or_there(folder: Path) -> None:
    config(folder, tie_word_embeddings=True)
    weights(folder, lambda values: values.pop("lm_head.weight"))
    before = logits(folder)
    weights(folder, lambda values: values.update({"lm_head.weight": values["model.embed_tokens.weight"].clone()}))
    assert torch.equal(logits(folder), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_2"},
        {"return_dict": False},
        {"output_attentions": True, "output_hidden_states": True},
        {"use_cache": False},
    ],
    ids=str,
)
def test_how_a_config_json_would_have_the_model_run_does_not_matter(folder: Path, changes: dict[str, Any]) -> None:
    before = logits(folder)
    config(folder, **changes)
    assert torch.equal(logits(folder), before)
    assert load(folder, device="cpu").config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "changes",
    [
        {"torch_dtype": "auto"},
        {"torch_dtype": "torch.bfloat16"},
        {"dtype": "bf16"},
        {"use_return_dict": False},
        {"_experts_implementation": "grouped_mm"},
        {"_attn_implementation": "sdpa", "output_attentions": True},
        {"use_cache": None},
        {"id2label": {"LABEL": "0"}, "num_labels": 3},
    ],
    ids=str,
)
def test_words_of_config_json_that_transformers_itself_stumbles_over_do_not_matter(
    folder: Path, changes: dict[str, Any]
) -> None:
    ids = torch.tensor([[1, 5, 9]])
    before = load(folder, device="cpu")(ids).logits
    config(folder, **changes)
    assert torch.equal(load(folder, device="cpu")(ids).logits, before)


def test_what_the_class_itself_ignores_may_be_of_any_numbers(folder: Path) -> None:
    class Ignoring(LlamaForCausalLM):
        _keys_to_ignore_on_load_unexpected = (r"\.made_here$",)

    weights(folder, lambda values: values.update({"model.layers.0.made_here": torch.ones(2, dtype=torch.uint8)}))
    made, class_ = architecture(folder)
    check_tensors("The model", stored(folder), made, Ignoring)
    with pytest.raises(SafetyHeadsError, match=r"has the tensor 'model\.layers\.0\.made_here', for which the model"):
        check_tensors("The model", stored(folder), made, class_)
