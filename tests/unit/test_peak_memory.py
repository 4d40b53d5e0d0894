"""What scoring and generation hold at a time: a batch and the kept inputs of some prompts, however many there are."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import install
from safetyheads.engine.generation import Row, generate
from safetyheads.heads import Ablation, Kind, all_heads
from safetyheads.plans import Decoding

Mini = Callable[..., PreTrainedModel]

BUDGET, LENGTH, LAYERS, HEADS, HIDDEN, NEW = 2048, 16, 4, 4, 64, 16
KEPT = 4 * LAYERS * HIDDEN * BUDGET // HEADS
"""Bytes of every layer's input for as many prompts as fill a batch with one layer's heads, or of one layer for all."""


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive together, of those made within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.fixture(scope="module")
def model(mini: Mini) -> PreTrainedModel:
    return install(mini("llama", hidden_size=HIDDEN, intermediate_size=172, num_hidden_layers=LAYERS))


def peak(run: Callable[[], object]) -> int:
    with torch.inference_mode(), Peak() as counter:
        run()
    return counter.most


def prompts_of(count: int) -> pd.DataFrame:
    ids = torch.randint(3, 97, (count, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    return pd.DataFrame({"query_id": [f"q-{at}" for at in range(count)], "token_ids": ids})


def whole_pass(model: PreTrainedModel, tokens: int, use_cache: bool) -> int:
    """Of a plain pass over so many tokens, with or without their keys and values."""
    ids = torch.ones(tokens // LENGTH, LENGTH, dtype=torch.long)
    return peak(lambda: model(ids, use_cache=use_cache, logits_to_keep=1))


@pytest.mark.parametrize("what", ["ships", "sahara"])
def test_scoring_holds_one_batch(what: str, model: PreTrainedModel, tmp_path: Path) -> None:
    def score(count: int) -> int:
        parts, ablation = Parts(tmp_path / f"{count}.parquet"), Ablation(Kind.UNDIFFERENTIATED)
        settings: dict[str, Any] = {"token_budget": BUDGET, "parts": parts}
        if what == "sahara":
            return peak(
                lambda: sahara(
                    model, prompts_of(count), ablation, steps=1, rank=1, representation="final_norm", **settings
                )
            )
        return peak(lambda: ships(model, prompts_of(count), ablation, **settings))

    few, many = score(150), score(500)
    assert few <= KEPT + 1.5 * whole_pass(model, BUDGET, use_cache=False)
    if what == "ships":
        assert many <= 1.01 * few
    else:  # Sahara's matrices are of all prompts
        assert many <= KEPT + 1.5 * whole_pass(model, BUDGET, use_cache=False)


def test_a_shared_prefix_holds_keys_and_values_of_one_batch_more(model: PreTrainedModel, tmp_path: Path) -> None:
    """Of one layer's heads with the longest prefix that is shared, and not of two layers' heads."""
    prefix = torch.randint(3, 97, (BUDGET // HEADS,), generator=torch.Generator().manual_seed(1)).tolist()
    apart = prompts_of(40)
    together = apart.assign(token_ids=[[*prefix, *ids] for ids in apart["token_ids"]])

    def score(prompts: pd.DataFrame, name: str) -> int:
        parts = Parts(tmp_path / name)
        return peak(lambda: ships(model, prompts, Ablation(Kind.SCALING), token_budget=BUDGET, parts=parts))

    shared_tokens_of = 2 * 4 * LAYERS * HIDDEN * BUDGET  # keys and values, float32, every layer
    assert score(together, "together") <= KEPT + shared_tokens_of + 2.5 * whole_pass(model, BUDGET, use_cache=False)


def test_sahara_holds_the_states_of_one_layer_and_leaves_none_on_disk(mini: Mini, tmp_path: Path) -> None:
    """The states of a layer: its heads x prompts x width. More layers are more parts, but hardly more memory."""
    count, states = 500, 4 * HEADS * 500 * HIDDEN

    def search(layers: int) -> int:
        model = install(mini("llama", hidden_size=HIDDEN, intermediate_size=172, num_hidden_layers=layers))
        parts = Parts(tmp_path / f"{layers}.parquet")
        settings: dict[str, Any] = {"token_budget": 16 * LENGTH, "parts": parts, "rank": 1}
        most = peak(
            lambda: sahara(
                model, prompts_of(count), Ablation(Kind.SCALING), steps=1, representation="residual", **settings
            )
        )
        written = [path.stat().st_size for path in parts.folder.iterdir()]
        assert len(written) == layers
        assert max(written) < 500, "angles and gaps of 4 heads, and numpy's header"
        return most

    two, six = search(2), search(6)
    assert six <= 1.05 * two
    assert two < 4 * states < 6 * states, "one layer's, once more in float64, and little else"


def test_generation_holds_one_batch(model: PreTrainedModel, tmp_path: Path) -> None:
    def complete(count: int) -> int:
        rows = [
            Row(row.query_id, row.token_ids, (head,))
            for row in prompts_of(count).itertuples()
            for head in all_heads(LAYERS, HEADS)
        ]
        parts = Parts(tmp_path / f"{count}.parquet")
        return peak(
            lambda: generate(
                *(model, rows, Ablation(Kind.UNDIFFERENTIATED), Decoding(max_new_tokens=NEW)),
                eos_token_ids=(),
                token_budget=BUDGET,
                parts=parts,
            )
        )

    few, many = complete(50), complete(200)
    assert many <= 1.01 * few
    assert few <= KEPT + 1.5 * whole_pass(model, BUDGET, use_cache=True)
