"""Models: a good folder is described and loaded as it is, a bad one is named before anything is computed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import safetyheads
from safetyheads.engine import ablation
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head
from safetyheads.models.describe import describe
from safetyheads.models.download import sha256_of
from safetyheads.models.find import locate
from safetyheads.models.load import load
from safetyheads.models.tokenizer import load_tokenizer

TINY = Path(__file__).parents[1] / "data" / "tiny_a"
LLAMA = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of tiny_a to spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes a key out."""
    kept = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))


def problem(folder: Path) -> str:
    """What both `describe` and `load` say of a folder."""
    with pytest.raises(SafetyHeadsError) as described:
        describe(folder, model="m", source="path")
    with pytest.raises(SafetyHeadsError) as loaded:
        load(folder, device="cpu")
    assert str(described.value) == str(loaded.value)
    assert str(folder) in str(described.value)
    return str(described.value)


def save(folder: Path, config: transformers.PreTrainedConfig, **options: object) -> Path:
    """A random model with tiny_a's tokenizer."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder, **options)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(TINY / name, folder / name)
    return folder


def logits(model: transformers.PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 43, 323, 320]])).logits


def test_the_description_is_that_of_the_folder():
    described = describe(TINY, model="tiny", source="path")
    config = json.loads((TINY / "config.json").read_text())
    assert described["model"] == "tiny"
    assert described["class"] == config["architectures"][0]
    assert described["model_type"] == config["model_type"]
    assert described["layers"] == config["num_hidden_layers"]
    assert described["heads"] == config["num_attention_heads"]
    assert described["kv_heads"] == config["num_key_value_heads"]
    assert described["head_dim"] * described["heads"] == described["hidden_size"] == config["hidden_size"]
    assert described["vocab_size"] == config["vocab_size"]
    assert described["context_length"] == config["max_position_embeddings"]
    assert described["eos_token_ids"] == [config["eos_token_id"]]
    assert described["files"] == {path.name: sha256_of(path) for path in TINY.iterdir()}
    assert (described["source"], described["repo"], described["revision"]) == ("path", None, None)
    assert described["tokenizer"] == "fast"
    assert described["chat_template_sha256"] is None


def test_the_description_does_not_depend_on_where_the_folder_is(folder):
    here, there = (describe(place, model="m", source="path") for place in (TINY, folder))
    assert here == there
    assert str(folder.parent) not in json.dumps(there)


def test_the_description_names_the_commit_of_a_snapshot(folder):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = Path(shutil.copytree(folder, folder.parent / "snapshots" / commit))
    described = describe(snapshot, model="m", source="repo", repo="some/thing", revision="main")
    assert (described["repo"], described["revision"]) == ("some/thing", commit)


def test_the_demo_s_planted_heads_are_kept(folder):
    heads = {"organism": "decoy", "planted": ["L01H03", "L02H06"], "decoy": "L00H05"}
    described = describe(folder, model="m", source="demo", **heads)
    assert {key: described[key] for key in heads} == heads


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_changed_file_changes_its_hash_and_no_other(folder, name):
    before = describe(folder, model="m", source="path")
    if name == "model.safetensors":
        weights = load_file(folder / name)
        save_file({**weights, "lm_head.weight": -weights["lm_head.weight"]}, folder / name, {"format": "pt"})
    else:
        (folder / name).write_text((folder / name).read_text() + "\n")
    after = describe(folder, model="m", source="path")
    assert {key for key in before["files"] if before["files"][key] != after["files"][key]} == {name}
    assert (before["tokenizer_sha256"] != after["tokenizer_sha256"]) == (name == "tokenizer.json")


def test_every_file_s_end_of_sequence_ids_are_counted(folder):
    edit(folder / "generation_config.json", eos_token_id=[7, 2])
    edit(folder / "config.json", eos_token_id=[9])
    edit(folder / "tokenizer_config.json", eos_token="<pad>")
    edit(folder / "special_tokens_map.json", eos_token="<pad>")
    assert describe(folder, model="m", source="path")["eos_token_ids"] == [2, 3, 7, 9]


def test_heads_that_share_keys_and_a_head_size_of_its_own_are_described(tmp_path):
    config = transformers.LlamaConfig(**LLAMA, head_dim=32)
    described = describe(save(tmp_path / "m", config), model="m", source="path")
    assert (described["heads"], described["kv_heads"], described["head_dim"]) == (8, 2, 32)


def test_a_chat_template_is_hashed_wherever_it_is_written(folder):
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    in_file = describe(folder, model="m", source="path")
    (folder / "chat_template.jinja").unlink()
    given = describe(folder, model="m", source="path", chat_template=template)
    assert in_file["chat_template_sha256"] == given["chat_template_sha256"] is not None
    assert load_tokenizer(folder, "fast", template).chat_template == template


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_class": "GPTNeoXTokenizerFast"},
        {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
        {"tokenizer_class": "GemmaTokenizer"},
    ],
)
def test_a_tokenizer_that_the_quick_class_gets_wrong_is_loaded_by_its_own(folder, changes):
    edit(folder / "tokenizer_config.json", **changes)
    quick, own = (load_tokenizer(folder, kind)("How  are you?")["input_ids"] for kind in ("fast", "auto"))
    assert quick != own
    assert describe(folder, model="m", source="path")["tokenizer"] == "auto"


@pytest.mark.parametrize("spoil", [lambda data: data[:-100], lambda data: b"version https://git-lfs"])
def test_a_tokenizer_file_that_is_not_whole_is_named(folder, spoil):
    path = folder / "tokenizer.json"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SafetyHeadsError, match=r"tokenizer\.json"):
        describe(folder, model="m", source="path")


def test_a_folder_without_tokenizer_says_so(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink()
    with pytest.raises(SafetyHeadsError, match=r"tokenizer\.json"):
        describe(folder, model="m", source="path")


def test_finding_a_model_and_its_tokenizer_takes_no_torch():
    code = (
        "import sys; from safetyheads.models.find import locate\n"
        "from safetyheads.models.tokenizer import load_tokenizer\n"
        f"folder = locate(path={str(TINY)!r}, repo=None, revision=None);"
        "ids = load_tokenizer(folder, 'fast')('How are you?')['input_ids'];"
        "assert ids and 'torch' not in sys.modules"
    )
    library = str(Path(safetyheads.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": library}, check=True, timeout=120)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SafetyHeadsError, match="does not exist"):
        locate(path=str(tmp_path / "none"), repo=None, revision=None)
    with pytest.raises(SafetyHeadsError, match="is a file"):
        locate(path=str(TINY / "config.json"), repo=None, revision=None)


def test_a_loaded_model_computes_what_transformers_computes():
    plain = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    loaded = load(TINY, dtype="float32", device="cpu")
    assert torch.equal(logits(loaded), logits(plain))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_loaded_model_is_ready_for_ablation():
    model = load(TINY, device="cpu")
    with ablation.ablate(model, ablation.Ablation(ablation.Kind.SCALING), [(Head(1, 2),)]):
        ablated = logits(model)
    assert not torch.equal(ablated, logits(model))


def test_tf32_is_float32_on_the_cpu():
    tf32, float32 = (load(TINY, dtype=dtype, device="cpu") for dtype in ("tf32", "float32"))
    assert tf32.dtype is torch.float32
    ids = torch.tensor([[1, 5, 9, 20]])
    assert torch.equal(tf32(ids).logits, float32(ids).logits)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_have_the_type_that_was_asked_for(dtype):
    assert load(TINY, dtype=dtype, device="cpu").dtype == getattr(torch, dtype)


def test_on_the_cpu_auto_is_float32(folder):
    edit(folder / "config.json", torch_dtype="bfloat16")
    assert load(folder, dtype="auto", device="cpu").dtype == torch.float32


def test_a_model_with_capped_scores_runs_its_own_attention(tmp_path):
    config = transformers.Gemma2Config(**LLAMA, head_dim=8, attn_logit_softcapping=1.0, query_pre_attn_scalar=8)
    folder = save(tmp_path / "m", config)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    assert torch.equal(logits(load(folder, device="cpu")), logits(plain))


def test_the_attention_that_is_asked_for_is_used():
    assert load(TINY, device="cpu").config._attn_implementation == "sdpa"
    eager = load(TINY, device="cpu", attention="eager")
    assert eager.config._attn_implementation == "eager"
    plain = transformers.AutoModelForCausalLM.from_pretrained(TINY, attn_implementation="eager", dtype=torch.float32)
    assert torch.equal(logits(eager), logits(plain))


def test_attention_that_cannot_be_had_is_explained(tmp_path):
    config = transformers.Gemma2Config(**LLAMA, head_dim=8)
    with pytest.raises(SafetyHeadsError, match=r"`attention: sdpa`: Gemma2ForCausalLM caps.*Set auto or eager"):
        load(save(tmp_path / "m", config), device="cpu", attention="sdpa")
    with pytest.raises(SafetyHeadsError, match=r"flash_attention_2` cannot be had: .*GPU.*on cpu.*dtype is float32"):
        load(TINY, device="cpu", attention="flash_attention_2")


def test_quantised_weights_are_refused(folder: Path) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    assert "the weights are quantised (gptq), which is not supported" in problem(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "nope"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"hidden_size": 63},
        {"hidden_size": "many"},
        {"vocab_size": -5},
        {"num_key_value_heads": 3},
        {"rope_parameters": {"rope_type": "sideways", "rope_theta": 1e4}},
        {"eos_token_id": "</s>"},
        {"eos_token_id": {"id": 2}},
    ],
    ids=str,
)
def test_a_configuration_that_describes_no_model_is_refused(folder: Path, changes: dict[str, object]) -> None:
    edit(folder / "config.json", **changes)
    assert "config.json is not a valid llama configuration: " in problem(folder)


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(SafetyHeadsError, match=r"^`compute: device: cuda:99` .+ GPUs .+: \d+\. Use auto or cpu.*$"):
        load(TINY, device="cuda:99")


def test_shards_are_listed_and_a_missing_one_is_named(tmp_path):
    folder = save(tmp_path / "m", transformers.LlamaConfig(**LLAMA), max_shard_size="100KB")
    shards = sorted(path.name for path in folder.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    described = describe(folder, model="m", source="path")
    assert {*shards, "model.safetensors.index.json"} <= described["files"].keys()
    (folder / shards[1]).unlink()
    assert shards[1] in problem(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", None])
def test_without_safetensors_pickled_weights_are_no_help(folder, name):
    (folder / "model.safetensors").unlink()
    if name:
        (folder / name).write_text("{}")
    message = problem(folder)
    assert "never loaded" in message
    assert name is None or name in message


@pytest.mark.parametrize("spoil", [lambda data: data[:-100], lambda data: b"version https://git-lfs", lambda data: b""])
def test_a_file_of_weights_that_is_not_whole_is_named(folder, spoil):
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert "model.safetensors" in problem(folder)


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.o_proj.weight", "lm_head.weight"])
def test_parameters_that_the_checkpoint_lacks_are_never_made_up(folder, name):
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({key: value for key, value in weights.items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(SafetyHeadsError, match=name):
        load(folder, device="cpu")


def test_parameters_of_another_shape_are_named(folder):
    edit(folder / "config.json", intermediate_size=96)
    with pytest.raises(SafetyHeadsError, match=r"mlp\.down_proj\.weight"):
        load(folder, device="cpu")


def test_tied_weights_are_not_missing(tmp_path):
    folder = save(tmp_path / "m", transformers.LlamaConfig(**LLAMA, tie_word_embeddings=True))
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert logits(load(folder, device="cpu")).isfinite().all()


@pytest.mark.parametrize(
    "config",
    [
        transformers.FalconConfig(vocab_size=512, hidden_size=64, num_hidden_layers=2, num_attention_heads=4),
        transformers.BloomConfig(vocab_size=512, hidden_size=64, n_layer=2, n_head=4),
    ],
)
def test_a_family_outside_the_attention_interface_is_named(tmp_path, config):
    folder = save(tmp_path / "m", config)
    message = problem(folder)
    assert f"{type(config).__name__.removesuffix('Config')}ForCausalLM" in message
    assert "Llama" in message


def test_a_model_with_layers_without_heads_is_named(tmp_path):
    config = transformers.Lfm2Config(**LLAMA, layer_types=["conv", "full_attention"])
    assert "conv" in problem(save(tmp_path / "m", config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "lama"}, "Did you mean 'llama'?"),
        ({"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}, "its own code"),
        ({"model_type": None}, "None"),
        ({"model_type": "t5"}, "has an encoder besides its decoder"),
        ({"model_type": "vit"}, "left to right"),
        ({"model_type": "llava"}, "Its text decoder"),
        ({"num_attention_heads": "four"}, "num_attention_heads"),
    ],
)
def test_a_config_that_cannot_be_used_is_explained(folder, changes, said):
    edit(folder / "config.json", **changes)
    assert said in problem(folder)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_a_broken_config_file_is_named(folder, content):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert "config.json" in problem(folder)


def test_code_in_the_folder_is_never_run(folder):
    trap = f"from pathlib import Path\nPath({str(folder / 'sprung')!r}).touch()\nclass Mine: pass\n"
    (folder / "mine.py").write_text(trap)
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "mine.Mine", "AutoConfig": "mine.Mine"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]})
    describe(folder, model="m", source="path")
    load(folder, device="cpu")
    assert not (folder / "sprung").exists()


def test_an_adapter_is_not_a_model(folder):
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter" in problem(folder)
