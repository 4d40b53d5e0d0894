"""A folder that `save_pretrained` made of any family goes through all stages, with the family's own tokenizer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from definition import defined
from members import TEXTS, configuration, eager, installed, logits, own_logits, pairs, plain, with_tokenizer
from registry import FAMILIES, HEADS, LAYERS, Family
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.ships import ships
from safetyheads.engine.completions import complete
from safetyheads.engine.decoder import decoder
from safetyheads.heads import Ablation, Kind, all_heads
from safetyheads.models.describe import describe
from safetyheads.models.load import load
from safetyheads.models.tokenizer import load_tokenizer
from safetyheads.plans import Assignment, Decoding
from safetyheads.prompts import build as build_prompts

EPSILON = 0.05
ABLATION = Ablation(Kind.SCALING, EPSILON)


class Folder:
    """A family's folder, and what the library makes of it."""

    def __init__(self, family: Family, path: Path) -> None:
        self.own_tokenizer = with_tokenizer(family, path)
        self.described = describe(path, model="m", source="path")
        self.model: PreTrainedModel = load(path, device="cpu")
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(path, self.described["tokenizer"])
        queries = pd.DataFrame({"query_id": [f"q-{at}" for at in range(len(TEXTS))], "query": TEXTS})
        self.prompts = build_prompts(
            queries, {"text": "{query}"}, self.tokenizer, self.described["context_length"]
        ).table


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(family, tmp_path_factory.mktemp("family"))


def test_it_is_described_and_loaded_as_it_is(family: Family, folder: Folder) -> None:
    described, config = folder.described, configuration(family)
    assert described["class"] == type(plain(family)).__name__
    assert (described["layers"], described["heads"]) == (LAYERS, HEADS)
    assert described["kv_heads"] == (HEADS // 2 if family.shares_keys else HEADS)
    assert described["eos_token_ids"] == sorted({config.eos_token_id, folder.own_tokenizer.eos_token_id})
    assert folder.model.config._attn_implementation == ("eager" if family.eager else "sdpa")
    ids = torch.tensor([[5, 9, 17, 33, 3]])
    assert torch.equal(logits(folder.model, ids), own_logits(plain(family), ids))


def test_its_tokenizer_is_its_own(folder: Folder) -> None:
    assert folder.prompts["token_ids"].map(list).tolist() == folder.own_tokenizer(TEXTS)["input_ids"]


def test_its_scores_are_those_of_whole_passes_by_definition(family: Family, folder: Folder, tmp_path: Path) -> None:
    """Ships (equation 9) and the first step of Sahara (algorithm 1), computed with NumPy and SciPy."""
    heads = all_heads(LAYERS, HEADS)
    states: dict[tuple[int, int], np.ndarray] = {}
    expected = {}
    hook = decoder_norm(family).register_forward_hook(lambda _, __, output: captured.append(output[:, -1]))
    for prompt, ids in enumerate(folder.prompts["token_ids"]):
        captured: list[torch.Tensor] = []
        with defined(eager(family), "scaling", EPSILON, [(), *(pairs([head]) for head in heads)]):
            rows = logits(eager(family), torch.tensor([list(ids)] * (1 + len(heads))))[:, -1].double()
        log_p = torch.log_softmax(rows, dim=-1)
        for at, head in enumerate(heads):
            expected[prompt, *head] = float((log_p[0].exp() * (log_p[0] - log_p[1 + at])).nansum())
        states[prompt] = captured[-1].double().numpy()
    hook.remove()
    scores = ships(folder.model, folder.prompts, ABLATION, token_budget=300, parts=Parts(tmp_path / "ships"))
    found = {(int(row.query_id[2:]), row.layer, row.head): row.score for row in scores.itertuples()}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert max(found.values()) > 1e-3

    matrices = np.stack([states[prompt] for prompt in range(len(TEXTS))], axis=1)  # (1 + heads, prompts, d_model)
    first = [np.linalg.svd(matrix)[0][:, :1] for matrix in matrices]
    angles = [float(np.degrees(scipy.linalg.subspace_angles(first[0], other)).sum()) for other in first[1:]]
    steps = sahara(
        folder.model,
        folder.prompts,
        ABLATION,
        steps=1,
        rank=1,
        representation="final_norm",
        token_budget=300,
        parts=Parts(tmp_path / "sahara"),
    )
    assert steps["score"].tolist() == pytest.approx(angles, rel=1e-3, abs=1e-3)
    assert max(angles) > 0.01


def decoder_norm(family: Family) -> torch.nn.Module:
    """The final norm of the model that computes by definition."""
    model = installed(family)
    names = {module: name for name, module in model.named_modules()}
    return eager(family).get_submodule(names[decoder(model).norm])


def test_its_completions_are_those_of_transformers(family: Family, folder: Folder, tmp_path: Path) -> None:
    assignments = [Assignment(query, "none", ()) for query in folder.prompts["query_id"]]
    made = complete(
        folder.model,
        folder.tokenizer,
        folder.prompts,
        assignments,
        None,
        Decoding(max_new_tokens=6),
        context_length=folder.described["context_length"],
        eos_token_ids=folder.described["eos_token_ids"],
        token_budget=400,
        parts=Parts(tmp_path / "completions"),
    )
    for ids, row in zip(folder.prompts["token_ids"], made.itertuples()):
        output = (
            plain(family)
            .generate(
                torch.tensor([list(ids)]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=6,
                do_sample=False,
                eos_token_id=folder.described["eos_token_ids"],
                pad_token_id=0,
            )[0, len(ids) :]
            .tolist()
        )
        ended = output[-1] in folder.described["eos_token_ids"]
        assert row.token_ids == (output[:-1] if ended else output)
        assert row.text == folder.own_tokenizer.decode(row.token_ids, skip_special_tokens=True)
