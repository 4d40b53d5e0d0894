"""Small models, built in memory, and the golden one."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_models import build
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.chosen_heads import assign
from safetyheads.engine.completions import complete
from safetyheads.engine.partial_forward import PartialForward, Shortcut, Top
from safetyheads.heads import Ablation, HeadSet, Kind
from safetyheads.models.load import load
from safetyheads.models.tokenizer import load_tokenizer
from safetyheads.plans import Decoding, parse_plan
from safetyheads.prompts import build as build_prompts

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)

SCALING = Ablation(Kind.SCALING)


@pytest.fixture(scope="session")
def mini() -> Callable[..., PreTrainedModel]:
    """The builder of random models: `mini("llama", seed=1, num_hidden_layers=1)`."""
    return build


@pytest.fixture(scope="session")
def whole() -> Callable[..., Top]:
    """The top of one plain forward pass, without any shortcut: `whole(model, token_ids, ablation, heads)`."""

    def run(model: PreTrainedModel, ids: list[int], ablation: Ablation | None = None, heads: HeadSet = ()) -> Top:
        passes = PartialForward(model)
        passes.shortcut = Shortcut.NONE
        return passes.whole(torch.tensor([ids]), ablation, [heads])

    return run


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the golden numbers."""
    return Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def tiny_a(golden: Path) -> PreTrainedModel:
    """The golden model, loaded as the pipeline loads it."""
    return load(golden / "tiny_a", dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def tokenizer(golden: Path) -> PreTrainedTokenizerBase:
    """The golden model's tokenizer, which adds `<s>`."""
    return load_tokenizer(golden / "tiny_a", "fast")


@pytest.fixture
def prompts(tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Three prompts of the golden model, of different lengths and not in the order of their ids."""
    queries = {"q-1": "Where is the library?", "q-0": "Tea.", "q-2": "Please describe a quiet morning by the lake."}
    table = pd.DataFrame({"query_id": list(queries), "query": list(queries.values())})
    return build_prompts(table, {"text": "{query}"}, tokenizer, 2048).table


@pytest.fixture
def completions(
    tiny_a: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, tmp_path: Path
) -> Callable[..., pd.DataFrame]:
    """The completions of a plan, each time computed anew: `completions("single", Decoding(), token_budget=40)`.

    They are those of the golden model and of `prompts` if no others are given. Other settings are for `complete`.
    """
    numbers = count()

    def run(
        plan: str,
        decoding: Decoding,
        *,
        model: PreTrainedModel = tiny_a,
        prompts: pd.DataFrame = prompts,
        ablation: Ablation | None = SCALING,
        heads: HeadSet = (),
        **settings: Any,
    ) -> pd.DataFrame:
        assignments = assign(parse_plan(plan), list(prompts["query_id"]), (4, 4), heads=heads)
        given = {"context_length": 2048, "parts": Parts(tmp_path / f"{next(numbers)}.parquet"), **settings}
        return complete(model, tokenizer, prompts, assignments, ablation, decoding, **given)

    return run


@pytest.fixture
def sequences() -> Callable[..., list[list[int]]]:
    """Random token ids, none of them special: `sequences([5, 7, 5], seed=1, vocabulary=97)`."""

    def draw(lengths: list[int], seed: int = 0, vocabulary: int = 97) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(3, vocabulary, (length,), generator=generator).tolist() for length in lengths]

    return draw
