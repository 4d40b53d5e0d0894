"""A family's folder whose weights were damaged is refused, by one message that names the cause."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from members import with_tokenizer
from registry import FAMILIES, Family
from safetensors.torch import load_file, save_file

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe
from safetyheads.models.load import load

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: Family = request.param
    path = tmp_path_factory.mktemp("family")
    with_tokenizer(family, path)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(whole, copy)
    return copy


def change(folder: Path, of: Callable[[dict[str, torch.Tensor]], None], file: str = "model.safetensors") -> None:
    weights = load_file(folder / file)
    of(weights)
    save_file(weights, folder / file, metadata={"format": "pt"})


def split(folder: Path) -> dict[str, str]:
    """The weights in two files and an index, which is returned."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = dict(zip(SHARDS, (names[: len(names) // 2], names[len(names) // 2 :])))
    for file, half in halves.items():
        save_file({name: weights[name] for name in half}, folder / file, metadata={"format": "pt"})
    index = {name: file for file, half in halves.items() for name in half}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return index


def matrix(weights: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(weights) if re.search(r"(layers|\bh)\.", name) and weights[name].dim() > 1)


def scale_beside_a_weight(folder: Path) -> None:
    change(folder, lambda weights: weights.update({f"{matrix(weights)}_scale": torch.ones(1)}))


def index_pointing_elsewhere(folder: Path) -> None:
    index = split(folder)
    name = next(iter(index))
    index[name] = SHARDS[1] if index[name] == SHARDS[0] else SHARDS[0]
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def tensor_twice(folder: Path) -> None:
    index = split(folder)
    stale = next(name for name in index if index[name] == SHARDS[0])
    change(folder, lambda weights: weights.update({stale: torch.zeros(3)}), SHARDS[1])


def stray_tensor(folder: Path) -> None:
    change(folder, lambda weights: weights.update({"model.layers.0.self_attn.lora_A.weight": torch.ones(2, 2)}))


def eight_bits(folder: Path) -> None:
    def quantise(weights: dict[str, torch.Tensor]) -> None:
        weights[matrix(weights)] = weights[matrix(weights)].to(torch.int8)

    change(folder, quantise)


DAMAGES: dict[Callable[[Path], None], str] = {
    scale_beside_a_weight: "_scale', which stands beside weights that are quantised",
    index_pointing_elsewhere: "The index belongs to other files",
    tensor_twice: "twice, in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors",
    stray_tensor: "has the tensor 'model.layers.0.self_attn.lora_A.weight', for which the model",
    eight_bits: "as I8 numbers, which are quantised",
}


def test_weights_in_several_files_are_as_good_as_in_one(folder: Path) -> None:
    before = load(folder, device="cpu").state_dict()
    split(folder)
    describe(folder, model="m", source="path")
    after = load(folder, device="cpu").state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_weights_are_refused_with_the_cause(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    for use in (lambda: describe(folder, model="m", source="path"), lambda: load(folder, device="cpu")):
        with pytest.raises(SafetyHeadsError) as error:
            use()
        assert DAMAGES[damage] in str(error.value)
