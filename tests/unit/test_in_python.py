"""The public door: what `import safetyheads as sh` offers for models that the caller has loaded himself."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    FalconForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)

import safetyheads as sh
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.ships import ships
from safetyheads.engine.ablation import ablate, install
from safetyheads.engine.generation import Row, generate
from safetyheads.heads import Ablation, Head, HeadSet, Kind, parse_head
from safetyheads.judges import judge
from safetyheads.models.load import load
from safetyheads.plans import Decoding
from safetyheads.prompts import build

ROOT = Path(__file__).parents[2]
QUERIES = ["How do I bake bread?", "What is the capital of France?", "Why is the sky blue?"]
SETS = [["L00H01"], ["L02H03", "L01H00"], []]
Mini = Callable[..., PreTrainedModel]


@pytest.fixture
def model(golden: Path) -> PreTrainedModel:
    """A model as a caller loads it."""
    found: PreTrainedModel = AutoModelForCausalLM.from_pretrained(golden / "tiny_a", dtype=torch.float32)
    return found


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(5, 400, (3, 7), generator=torch.Generator().manual_seed(0))


def head_sets(names: list[list[str]]) -> list[HeadSet]:
    return [tuple(sorted(map(parse_head, of_row))) for of_row in names]


@torch.inference_mode()
def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    found: Tensor = model(ids, use_cache=False).logits
    return found


def expected(model: PreTrainedModel, ids: Tensor, sets: list[HeadSet], kind: str = "undifferentiated") -> Tensor:
    with ablate(install(model), Ablation(Kind(kind), 1e-5), sets):
        return logits(model, ids)


def completed(model: PreTrainedModel, ids: Tensor, **settings: Any) -> list[list[int]]:
    """The new tokens that `generate` makes."""
    made: Any = model.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, min_new_tokens=6, **settings
    )
    found: list[list[int]] = made[:, ids.shape[1] :].tolist()
    return found


def test_importing_the_library_takes_neither_torch_nor_pandas() -> None:
    heavy = "('torch', 'pandas', 'numpy', 'transformers', 'pydantic')"
    code = f"import sys, safetyheads as sh; sh.Head(1, 2); dir(sh); print([n for n in {heavy} if n in sys.modules])"
    code += (
        f"; sh.judge; print([n for n in {heavy} if n in sys.modules and n in ('torch', 'transformers', 'pydantic')])"
    )
    path = {"PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


def test_every_name_is_there_and_no_other() -> None:
    assert sh.Head is Head
    assert sh.judge is judge
    for name in sh.__all__:
        assert name in dir(sh)
        assert callable(getattr(sh, name))
    with pytest.raises(AttributeError, match="no attribute 'ablate'"):
        sh.ablate  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("kind", [kind.value for kind in Kind])
def test_one_head_set_is_ablated_in_every_row_of_any_batch(model: PreTrainedModel, ids: Tensor, kind: str) -> None:
    heads: HeadSet = (Head(1, 0), Head(2, 3))
    with sh.ablated(model, ["L02H03", sh.Head(1, 0)], kind=kind):
        found = [logits(model, ids[:rows]) for rows in (1, 2, 3)]
    for rows, ours in zip((1, 2, 3), found):
        assert torch.equal(ours, expected(model, ids[:rows], [heads] * rows, kind))
        assert not torch.equal(ours, logits(model, ids[:rows]))


def test_epsilon_is_the_factor(model: PreTrainedModel, ids: Tensor) -> None:
    with sh.ablated(model, ["L01H01"], kind="scaling", epsilon=1.0):
        assert torch.equal(logits(model, ids), logits(model, ids))
        as_before = logits(model, ids)
    assert torch.allclose(as_before, logits(model, ids), atol=1e-6)
    with sh.ablated(model, ["L01H01"], kind="scaling", epsilon=0.5):
        assert not torch.allclose(logits(model, ids), as_before, atol=1e-3)


def test_each_row_may_have_a_head_set_of_its_own(model: PreTrainedModel, ids: Tensor) -> None:
    plain = logits(model, ids)
    with sh.ablated(model, SETS):
        found = logits(model, ids)
    assert torch.equal(found, expected(model, ids, head_sets(SETS)))
    assert torch.equal(found[2], plain[2])
    assert not torch.equal(found[0], plain[0])


def test_no_head_leaves_the_model_as_it_is(model: PreTrainedModel, ids: Tensor) -> None:
    plain = logits(model, ids)
    for nothing in ([], [[], [], []]):
        with sh.ablated(model, nothing):
            assert torch.equal(logits(model, ids), plain)


def test_the_ablation_is_gone_behind_the_block_also_after_an_error(model: PreTrainedModel, ids: Tensor) -> None:
    plain = logits(model, ids)
    with sh.ablated(model, ["L00H01"]):
        assert not torch.equal(logits(model, ids), plain)
    assert torch.equal(logits(model, ids), plain)
    with pytest.raises(KeyError), sh.ablated(model, ["L00H01"]):
        raise KeyError
    assert torch.equal(logits(model, ids), plain)
    with sh.ablated(model, ["L00H01"]):
        assert not torch.equal(logits(model, ids), plain)


@pytest.mark.parametrize("heads", [["L01H02", "L02H00"], SETS])
@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_says_what_the_engine_says(
    model: PreTrainedModel, ids: Tensor, tmp_path: Path, heads: Any, use_cache: bool
) -> None:
    with sh.ablated(model, heads):
        found = completed(model, ids, use_cache=use_cache, suppress_tokens=[2])
    sets = head_sets(heads if isinstance(heads[0], list) else [heads] * 3)
    rows = [Row(f"q-{index}", ids[index].tolist(), sets[index]) for index in range(3)]
    ablation = Ablation(Kind.UNDIFFERENTIATED)
    made = generate(
        *(model, rows, ablation, Decoding(max_new_tokens=6)),
        eos_token_ids=(),
        token_budget=64,
        parts=Parts(tmp_path / "x"),
    )
    assert [made[index].token_ids for index in range(3)] == found


def test_beams_take_one_head_set_or_one_for_each_row_that_the_model_sees(model: PreTrainedModel, ids: Tensor) -> None:
    with sh.ablated(model, ["L00H01"]):
        together = completed(model, ids, num_beams=2)
    alone = []
    for row in ids:
        with sh.ablated(model, ["L00H01"]):
            alone += completed(model, row[None], num_beams=2)
    assert together == alone
    assert together != completed(model, ids, num_beams=2)
    with sh.ablated(model, [heads for heads in SETS for _ in range(2)]):
        expanded = completed(model, ids, num_beams=2)
    assert expanded[0] == together[0]
    assert expanded[2] == completed(model, ids, num_beams=2)[2]
    with (
        pytest.raises(sh.SafetyHeadsError, match="3 head sets were given for a batch of 6 rows"),
        sh.ablated(model, SETS),
    ):
        completed(model, ids, num_beams=2)


WRONG = [
    (["L04H00"], "Head L04H00 does not exist: the model has layers 0 to 3 with heads 0 to 3"),
    ([["L00H00"], ["L00H04"]], "Head L00H04 does not exist"),
    ([sh.Head(9, 0)], "Head L09H00 does not exist"),
    (["L2H26x"], "'L2H26x' is not the name of a head"),
    ("L02H02", "were given as 'L02H02': give a list of them"),
    (sh.Head(1, 1), "give a list of them"),
    (3, "give a list of them"),
    (["L00H00", ["L00H01"]], "'L00H00' stands where a head set was expected"),
    ([1, 2], "1 stands where a head set was expected"),
    ([[(1, 2)]], r"\(1, 2\) is no head: write its name"),
]


@pytest.mark.parametrize(("heads", "said"), WRONG, ids=[repr(heads) for heads, _ in WRONG])
def test_wrong_heads_are_refused(model: PreTrainedModel, heads: Any, said: str) -> None:
    with pytest.raises(sh.SafetyHeadsError, match=said), sh.ablated(model, heads):
        pass


def test_an_unknown_kind_is_refused_with_the_nearest_known_one(model: PreTrainedModel) -> None:
    said = "no kind of ablation 'scalling'.*Did you mean 'scaling'"
    with pytest.raises(sh.SafetyHeadsError, match=said), sh.ablated(model, ["L00H00"], kind="scalling"):
        pass
    with pytest.raises(sh.SafetyHeadsError, match=said):
        sh.ships(model, None, QUERIES, kind="scalling")  # type: ignore[arg-type]


def test_models_that_cannot_be_ablated_are_refused() -> None:
    falcon = FalconForCausalLM(FalconConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4))
    with pytest.raises(sh.SafetyHeadsError, match="does not use the attention interface"), sh.ablated(falcon, []):
        pass
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4))
    with pytest.raises(sh.SafetyHeadsError, match="has an encoder"), sh.ablated(t5, []):
        pass
    wrong: Any = torch.nn.Linear(2, 2)
    with (
        pytest.raises(sh.SafetyHeadsError, match="The model is a Linear; it must be a model of"),
        sh.ablated(wrong, []),
    ):
        pass


def test_blocks_are_not_nested_and_the_outer_one_goes_on(model: PreTrainedModel, ids: Tensor) -> None:
    with sh.ablated(model, ["L00H01"]):
        before = logits(model, ids)
        with pytest.raises(sh.SafetyHeadsError, match="cannot be nested"), sh.ablated(model, ["L00H02"]):
            pass
        assert torch.equal(logits(model, ids), before)


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma2", "gpt_neox", "gpt2"])
def test_other_families_are_ablated_as_they_come(mini: Mini, ids: Tensor, family: str) -> None:
    model, tokens = mini(family), ids % 97
    with sh.ablated(model, ["L01H01"]):
        found = logits(model, tokens)
    assert torch.equal(found, expected(model, tokens, [(Head(1, 1),)] * 3))
    assert not torch.equal(found, logits(model, tokens))


def test_another_attention_implementation_is_ablated_too(model: PreTrainedModel, ids: Tensor) -> None:
    with sh.ablated(model, ["L01H01"]):
        found = logits(model, ids)
    model.set_attn_implementation("eager")
    with sh.ablated(model, ["L01H01"]):
        assert torch.allclose(logits(model, ids), found, atol=1e-4)


def test_ships_are_the_pipelines(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, golden: Path, tmp_path: Path
) -> None:
    found = sh.ships(model, tokenizer, QUERIES, template="## Query:{query}\n## Answer:")
    table = pd.DataFrame({"query_id": range(3), "query": QUERIES})
    prompts = build(table, {"text": "## Query:{query}\n## Answer:"}, tokenizer, None).table
    own = load(golden / "tiny_a", dtype="float32", device="cpu")
    scores = ships(own, prompts, Ablation(Kind.UNDIFFERENTIATED), token_budget=8192, parts=Parts(tmp_path / "x"))
    assert list(found.columns) == ["query_id", "layer", "head", "score", "refusal_shift", "answer_shift"]
    assert len(found) == 3 * 16
    pd.testing.assert_frame_equal(found[scores.columns[:4]], scores[scores.columns[:4]])
    direct = sh.ships(model, tokenizer, QUERIES)
    assert not np.allclose(direct["score"], found["score"])


def test_sahara_chooses_a_head_a_step(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    found = sh.sahara(model, tokenizer, QUERIES, steps=2, kind="scaling")
    assert list(found.columns) == ["step", "layer", "head", "score", "selected"]
    assert found.groupby("step").size().tolist() == [16, 15]
    assert found[found["selected"]]["step"].tolist() == [1, 2]
    for _, of_step in found.groupby("step"):
        assert of_step["score"].idxmax() == of_step["selected"].idxmax()


def test_chat_takes_the_tokenizers_template(model: PreTrainedModel, golden: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(golden / "tiny_a")
    with pytest.raises(sh.SafetyHeadsError, match="no chat template"):
        sh.ships(model, tokenizer, QUERIES, chat=True)
    tokenizer.chat_template = "## Query:{{ messages[0]['content'] }}\n## Answer:"
    chat = sh.ships(model, tokenizer, QUERIES, chat=True)
    pd.testing.assert_frame_equal(chat, sh.ships(model, tokenizer, QUERIES, template="## Query:{query}\n## Answer:"))


def test_what_makes_no_prompt_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    for queries, said in (("one text", "must be a list of strings"), ([1], "must be a list"), ([], "no queries")):
        with pytest.raises(sh.SafetyHeadsError, match=said):
            sh.ships(model, tokenizer, queries)  # type: ignore[arg-type]
    with pytest.raises(sh.SafetyHeadsError, match="has no place for the query"):
        sh.ships(model, tokenizer, QUERIES, template="simple")
    with pytest.raises(sh.SafetyHeadsError, match="rank 1 with 1 prompts"):
        sh.sahara(model, tokenizer, QUERIES[:1])
    model.train()
    with pytest.raises(sh.SafetyHeadsError, match="call `model.eval\\(\\)` first"):
        sh.ships(model, tokenizer, QUERIES)


def test_the_readmes_lines_run_as_they_stand(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## In Python\n")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "my-model").symlink_to(golden / "tiny_a")
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(block[1], made)
    assert len(made["scores"]) == 3 * 16
    assert made["groups"]["selected"].sum() == 2
    assert made["best"] == made["scores"].groupby(["layer", "head"])["score"].mean().idxmax()
    assert made["verdicts"].columns.tolist() == ["harmful", "probability", "reason"]
    text = made["tokenizer"].batch_decode(made["made"], skip_special_tokens=True)[0]
    assert made["queries"][0] not in text, "the judge is given the answer alone"
