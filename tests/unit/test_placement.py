"""A model that is spread over devices, or larger than its memory, gives the numbers of one that is not."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate import dispatch_model
from pandas.testing import assert_frame_equal
from transformers import PreTrainedModel

from safetyheads.ablation import Ablation, Kind, install
from safetyheads.artifacts import Parts
from safetyheads.decoder import input_device
from safetyheads.generation import Decoding, Row, generate
from safetyheads.heads import all_heads
from safetyheads.sahara import sahara
from safetyheads.ships import ships

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


@pytest.mark.parametrize("family", ["llama_gqa", "mistral", "gemma2", "gpt2", "phi"])
@pytest.mark.parametrize("where", SPLITS)
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
