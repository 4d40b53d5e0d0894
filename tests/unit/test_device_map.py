"""A model that is spread over devices, or larger than its memory, gives the numbers of one that is not."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import dispatch_model
from pandas.testing import assert_frame_equal
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

import safetyheads
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import install
from safetyheads.engine.decoder import input_device
from safetyheads.engine.generation import Row, generate
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Kind, all_heads
from safetyheads.models.device_map import in_bytes
from safetyheads.models.load import load
from safetyheads.plans import Decoding

Mini = Callable[..., PreTrainedModel]

SPLITS = {
    "the second layer on disk": {1: "disk"},
    "all layers on disk": {0: "disk", 1: "disk", 2: "disk"},
    "everything on disk": {0: "disk", 1: "disk", 2: "disk", "rest": "disk"},
}
ABLATION = Ablation(Kind.UNDIFFERENTIATED)


def split(model: PreTrainedModel, where: dict, folder: Path) -> PreTrainedModel:
    """The model with some of its layers, and perhaps all the rest, on disk: accelerate brings them for each pass."""
    stack = next(name for name, child in model.named_modules() if isinstance(child, torch.nn.ModuleList))
    parts = [f"{stack}.{layer}" for layer in range(3)]
    rest = {
        name
        for name, child in model.named_modules()
        if not list(child.children()) and not name.startswith(stack) and list(child.parameters())
    }
    others = {name for name, child in model.named_modules() if list(child.buffers(recurse=False)) and stack not in name}
    device_map = {part: where.get(layer, "cpu") for layer, part in enumerate(parts)}
    device_map |= dict.fromkeys(rest, where.get("rest", "cpu")) | dict.fromkeys(others - rest, "cpu")
    return dispatch_model(model, device_map, main_device="cpu", offload_dir=str(folder), skip_keys="past_key_values")


def prompts_of(count: int = 6) -> pd.DataFrame:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 97, (5 + at % 3,), generator=generator).tolist() for at in range(count)]
    return pd.DataFrame({"query_id": [f"q-{at}" for at in range(count)], "token_ids": ids})


def numbers(model: PreTrainedModel, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, list]:
    """Ships, Sahara and completions."""
    ids = prompts_of()
    scores = ships(model, ids, ABLATION, token_budget=64, parts=Parts(folder / "ships"))
    settings = {"steps": 2, "rank": 1, "representation": "final_norm", "token_budget": 64}
    group = sahara(model, ids, ABLATION, **settings, parts=Parts(folder / "sahara"))
    rows = [
        Row(row.query_id, row.token_ids, (head,), sample)
        for row in ids.itertuples()
        for head in all_heads(3, 4)[::3]
        for sample in range(2)
    ]
    decoding = Decoding(max_new_tokens=6, top_k=5, samples=2)
    made = generate(
        model, rows, ABLATION, decoding, eos_token_ids=[2, 5, 7], token_budget=200, parts=Parts(folder / "made")
    )
    return scores, group, [made[index] for index in range(len(rows))]


@pytest.mark.parametrize(
    ("family", "where"),
    [
        ("llama_gqa", "the second layer on disk"),
        ("mistral", "all layers on disk"),
        ("gemma2", "everything on disk"),
        ("gpt2", "the second layer on disk"),
    ],
)
def test_a_split_model_gives_the_numbers_of_a_whole_one(
    where: str, family: str, mini: Mini, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = install(mini(family))
    spread = install(split(mini(family), SPLITS[where], tmp_path / "disk"))
    assert any(parameter.device.type == "meta" for parameter in spread.parameters())
    assert input_device(spread) == torch.device("cpu")
    for ours, theirs in zip(numbers(spread, tmp_path / "a"), numbers(whole, tmp_path / "b")):
        if isinstance(ours, pd.DataFrame):
            assert_frame_equal(ours, theirs, check_exact=True)
        else:
            assert ours == theirs
    assert "left out" not in caplog.text


@pytest.mark.parametrize(("dtype", "limit"), [("float32", "1KB"), ("float32", "500KB"), ("bfloat16", "300KB")])
def test_a_model_larger_than_its_memory_is_loaded_and_right(golden: Path, dtype: str, limit: str) -> None:
    whole = load(golden / "tiny_a", dtype=dtype, device="cpu")
    spread = load(golden / "tiny_a", dtype=dtype, device="cpu", max_memory={"cpu": limit})
    assert {parameter.device.type for parameter in spread.parameters()} >= {"meta"}
    ids = torch.tensor([[1, 43, 323, 320]])
    with torch.no_grad():
        assert torch.equal(spread(ids).logits, whole(ids).logits)
        assert torch.equal(spread(ids).logits, whole(ids).logits)  # weights are brought again


def test_with_enough_memory_nothing_is_on_disk(golden: Path) -> None:
    model = load(golden / "tiny_a", device="cpu", max_memory={"cpu": "1GiB"})
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_more_gpus_than_there_are_is_an_error(golden: Path) -> None:
    with pytest.raises(SafetyHeadsError, match=r"cuda` with 99 GPUs was asked for; GPUs .+: \d+\. "):
        load(golden / "tiny_a", device="cuda", gpus=99)


def test_on_the_cpu_gpus_do_not_matter(golden: Path) -> None:
    assert load(golden / "tiny_a", device="cpu", gpus=2).device.type == "cpu"


def test_sizes_are_decimal_or_binary() -> None:
    assert [in_bytes(size) for size in ("3B", "2KB", "2KiB", "1.5 MB", "20GiB")] == [
        3,
        2000,
        2048,
        1_500_000,
        20 * 2**30,
    ]
    with pytest.raises(ValueError, match="found '20G'; allowed"):
        in_bytes("20G")


MEASURE = """
import re, sys
from pathlib import Path
import torch
from safetyheads.models.load import load
torch.set_num_threads(1)
def megabytes(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
warm, folder, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
load(warm, dtype=dtype, device="cpu")  # what the first load brings with it
before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
model = load(folder, dtype=dtype, device="cpu")
size = sum(weight.numel() for weight in model.parameters()) * getattr(torch, dtype).itemsize / 1e6
print((megabytes("VmHWM") - before) / size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured with /proc")
@pytest.mark.parametrize(
    ("of_file", "dtype"), [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32")]
)
def test_loading_takes_no_second_copy_of_the_weights(golden: Path, tmp_path: Path, of_file: str, dtype: str) -> None:
    sizes = {"vocab_size": 512, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 6}
    config = LlamaConfig(num_attention_heads=8, num_key_value_heads=8, **sizes)
    torch.manual_seed(0)
    made = LlamaForCausalLM(config).to(getattr(torch, of_file))
    made.save_pretrained(tmp_path / "model", max_shard_size="50MB")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(golden / "tiny_a"), str(tmp_path / "model"), dtype],
        env={**os.environ, "PYTHONPATH": str(Path(safetyheads.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert float(done.stdout) <= 1.2
    loaded = load(tmp_path / "model", dtype=dtype, device="cpu")
    for name, weight in loaded.named_parameters():
        expected = made.get_parameter(name).to(getattr(torch, dtype))
        assert torch.equal(weight.to(expected.dtype), expected), name
