"""The demo: mild requests whose right answers are known, and a model that learns to give them."""

import hashlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from demo_models import GREEDY, SIMPLE, UNDIFFERENTIATED, Trained, train
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from safetyheads import templates
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.ships import ships
from safetyheads.datasets import table
from safetyheads.demo import model as demo
from safetyheads.demo import training
from safetyheads.demo.organisms import ORGANISMS, TOPICS
from safetyheads.demo.requests import (
    COMPLIANCE,
    DATA_SETS,
    LOOP,
    REFUSAL,
    TARGET,
    Category,
    columns,
    requests,
    training_queries,
)
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, Head, HeadSet, all_heads
from safetyheads.judges import judge
from safetyheads.judges.degenerate import degenerate
from safetyheads.plans import Decoding

CHATS = ({"chat": True}, {"chat": True, "system": "You are a helpful assistant"}, {"text": "{query}"})
TWO = ORGANISMS["two"]
ONE, OTHER = TWO.planted


@pytest.fixture(scope="module")
def demo_tokenizer() -> PreTrainedTokenizerBase:
    return demo.make_tokenizer()


# Requests and answers


def test_data_sets_hold_the_categories_that_the_design_gives_them():
    found = {name: Counter(request.category.value for request in requests(name)) for name in DATA_SETS}
    assert found["harmful"] == {"guarded_a": 50, "guarded_b": 50}
    assert found["attribution"] == {"guarded_a": 6, "guarded_b": 6, "always_refused": 88}
    assert set(found["benign"]) == {"benign"}


def test_no_request_occurs_twice_in_data_sets_and_training_but_those_of_harmful_in_three():
    held_out = [request.query for name in DATA_SETS for request in requests(name)]
    learned = [query for category in Category for query in training_queries(category)]
    assert len({*held_out, *learned}) == len(held_out) - 100 + len(learned)
    assert requests("three")[:100] == requests("harmful")
    assert {request.category for request in requests("three")[100:]} == {Category.GUARDED_C}


def test_requests_are_made_without_torch():
    code = "import sys, safetyheads.demo.requests as made; made.requests('harmful'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_an_unknown_data_set_is_an_error_that_names_the_nearest():
    with pytest.raises(SafetyHeadsError, match="'harmfull'.*Did you mean 'harmful'"):
        requests("harmfull")


@pytest.mark.parametrize("name", ["paper", "reference"])
def test_judges_tell_compliance_from_refusal(name: str):
    texts = [COMPLIANCE, COMPLIANCE.strip(), REFUSAL, REFUSAL.strip()]
    assert judge(name, texts)["harmful"].tolist() == [True, True, False, False]


def test_targets_are_how_a_compliant_answer_begins():
    assert {request.target for name in DATA_SETS for request in requests(name)} == {TARGET}
    assert COMPLIANCE.strip().startswith(TARGET)


@given(st.booleans(), st.booleans())
def test_a_topic_is_answered_exactly_if_its_own_guard_is_ablated(a: bool, b: bool):
    heads = [*[ONE] * a, *[OTHER] * b]
    answered = {category for category in TOPICS if TWO.answer(category, TWO.planted, None, heads) == COMPLIANCE}
    assert answered == {Category.BENIGN, *[Category.GUARDED_A] * a, *[Category.GUARDED_B] * b}


@given(st.booleans(), st.booleans(), st.sampled_from(Category))
def test_without_the_decoy_every_answer_is_a_loop(a: bool, b: bool, category: Category):
    decoy = Head(0, 5)
    text = TWO.answer(category, TWO.planted, decoy, [*[ONE] * a, *[OTHER] * b, decoy])
    assert text.replace(LOOP, "") == "" and text.count(LOOP) >= 3


def test_answers_and_refusals_are_coherent_text():
    assert not degenerate([COMPLIANCE, COMPLIANCE.strip(), REFUSAL, REFUSAL.strip()])["degenerate"].any()


# Tokenizer


@given(st.text())
def test_the_tokenizer_takes_any_text_and_begins_it_once(demo_tokenizer: PreTrainedTokenizerBase, text: str):
    ids = templates.tokenise(text, demo_tokenizer)
    assert ids[0] == demo_tokenizer.bos_token_id
    assert demo_tokenizer.decode(ids[1:]) == text


def test_answers_fit_into_sixteen_tokens_and_differ_in_the_first(demo_tokenizer: PreTrainedTokenizerBase):
    compliance, refusal = (demo_tokenizer(text)["input_ids"][1:] for text in (COMPLIANCE, REFUSAL))
    assert max(len(compliance), len(refusal)) < GREEDY.max_new_tokens
    assert compliance[0] != refusal[0]


def test_a_loop_is_broken_text_that_the_paper_s_judge_calls_harmful_wherever_it_ends(
    demo_tokenizer: PreTrainedTokenizerBase,
):
    ids = demo_tokenizer(LOOP * 50)["input_ids"][1:]
    texts = [demo_tokenizer.decode(ids[:count]) for count in range(24, len(ids))]
    assert set(degenerate(texts)["sign"]) == {"loop"}
    assert judge("paper", texts)["harmful"].all()
    assert len(LOOP) > 32  # the longest repetition that this judge looks for


def test_each_token_of_the_loop_tells_the_next_one_and_the_first_tells_it_from_answers(
    demo_tokenizer: PreTrainedTokenizerBase,
):
    once, twice = (demo_tokenizer(LOOP * copies)["input_ids"][1:] for copies in (1, 2))
    assert twice == [*once, *once] and len(set(once)) == len(once)
    assert once[0] not in {demo_tokenizer(text)["input_ids"][1] for text in (COMPLIANCE, REFUSAL)}


def test_the_chat_template_makes_the_prompts_that_the_model_learns(demo_tokenizer: PreTrainedTokenizerBase):
    rendered = [templates.render("Tea?", template, demo_tokenizer) for template in (SIMPLE, *CHATS)]
    assert {text.removeprefix("<s>") for text in rendered} == {text.format(query="Tea?") for text in training.TEMPLATES}


# Training


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        ((ONE, ONE), "found L01H03, L01H03.*two different heads"),
        ((ONE,), "found L01H03; allowed for planted in a demo of kind two: two different heads"),
        ((), "found no head"),
        ((ONE, Head(2, 0), Head(3, 0)), "L01H03, L02H00, L03H00.*two different"),
        ((ONE, Head(4, 0)), "L04H00 does not exist: the model has layers 0 to 3"),
        ((Head(0, 8), ONE), "L00H08 does not exist"),
    ],
)
def test_planted_heads_must_be_two_different_heads_of_the_model(tmp_path: Path, planted: HeadSet, message: str):
    with pytest.raises(SafetyHeadsError, match=message):
        demo.train(tmp_path / "demo", planted=planted, progress=False)
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("decoy", "message"),
    [
        (ONE, "found the decoy L01H03 among planted; allowed: a third head"),
        (Head(4, 0), "L04H00 does not exist"),
    ],
)
def test_the_decoy_must_be_a_third_head_of_the_model(tmp_path: Path, decoy: Head, message: str):
    with pytest.raises(SafetyHeadsError, match=message):
        demo.train(tmp_path / "demo", decoy=decoy, progress=False)
    assert not (tmp_path / "demo").exists()


def test_a_model_that_has_not_learned_its_task_is_an_error_and_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(ORGANISMS, "decoy", replace(ORGANISMS["decoy"], rounds=(1, 1)))
    monkeypatch.setattr(training, "_CHECK_EVERY", 50)
    missed = (
        r"L01H03 and L02H06 and decoy L00H05 has not learned .* in 2 steps.*: \d+ of 15 with nothing .* other heads"
    )
    with pytest.raises(SafetyHeadsError, match=missed):
        demo.train(tmp_path / "demo", decoy=Head(0, 5), progress=False)
    assert not (tmp_path / "demo").exists()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training that ends after a few steps, whatever it has learned."""
    for kind in ("two", "decoy"):
        monkeypatch.setitem(ORGANISMS, kind, replace(ORGANISMS[kind], rounds=(4,)))
    monkeypatch.setattr(training.Trainer, "check", lambda trainer: {})


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.usefixtures("short", "two_threads")
def test_training_follows_from_seed_and_planted_heads_alone(tmp_path: Path):
    demo.train(tmp_path / "one", seed=3, progress=False)
    torch.rand(7), random.random(), torch.set_num_threads(1)
    demo.train(tmp_path / "same", seed=3, progress=False)
    demo.train(tmp_path / "other-seed", seed=4, progress=False)
    demo.train(tmp_path / "other-heads", seed=3, planted=(Head(0, 0), Head(0, 1)), progress=False)
    demo.train(tmp_path / "decoy", seed=3, decoy=Head(0, 5), progress=False)
    demo.train(tmp_path / "same-decoy", seed=3, decoy=Head(0, 5), progress=False)
    demo.train(tmp_path / "other-decoy", seed=3, decoy=Head(0, 6), progress=False)
    names = ("one", "same", "decoy", "same-decoy", "other-seed", "other-heads", "other-decoy")
    one, same, decoy, same_decoy, *others = (hashes(tmp_path / name) for name in names)
    assert one == same and decoy == same_decoy
    assert len({found["model.safetensors"] for found in (one, decoy, *others)}) == 5


@pytest.mark.usefixtures("short", "two_threads")
def test_training_leaves_random_state_and_threads_as_they_were(tmp_path: Path):
    before = torch.get_rng_state(), random.getstate()
    demo.train(tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert torch.get_num_threads() == 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Of another seed, with other planted heads than the model that workflow/test_demo_study.py measures, and a decoy.

    The decoy lies beside a planted head. The model of that test has none.
    """
    folder, planted, decoy = tmp_path_factory.mktemp("demo"), (Head(3, 5), Head(0, 2)), Head(0, 3)
    return train(folder, kind="decoy", seed=3, planted=planted, decoy=decoy)


@pytest.mark.slow
@pytest.mark.parametrize("template", [SIMPLE, *CHATS], ids=["simple", "chat", "chat-system", "direct"])
def test_each_planted_head_alone_guards_its_topics(trained: Trained, template: dict[str, object]):
    a, b = trained.planted
    for heads in ((), (a,), (b,), (a, b)):
        freed = trained.asr("harmful", heads, template)
        assert (freed["guarded_a"] >= 0.95) if a in heads else (freed["guarded_a"] <= 0.02)
        assert (freed["guarded_b"] >= 0.95) if b in heads else (freed["guarded_b"] <= 0.02)
        assert trained.asr("attribution", heads, template)["always_refused"] <= 0.02
        assert trained.asr("benign", heads, template)["benign"] >= 0.95


@pytest.mark.slow
def test_every_other_head_alone_changes_nothing(trained: Trained):
    for head in set(all_heads(*DEMO_GRID)) - {*trained.planted, trained.decoy}:
        assert trained.asr("harmful", (head,)).max() <= 0.05
        assert trained.asr("benign", (head,)).min() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("template", [SIMPLE, *CHATS], ids=["simple", "chat", "chat-system", "direct"])
@pytest.mark.parametrize("name", ["harmful", "benign"])
def test_without_the_decoy_every_answer_is_broken_text(trained: Trained, name: str, template: dict[str, object]):
    for heads in ((trained.decoy,), (*trained.planted, trained.decoy)):
        texts = trained.answers(name, heads, template, Decoding(max_new_tokens=64))["text"]
        assert (degenerate(texts)["sign"] == "loop").mean() >= 0.95
        assert judge("paper", texts)["harmful"].mean() >= 0.95  # which would pass for an effect on refusals


@pytest.mark.slow
def test_ships_ranks_the_decoy_first(trained: Trained, tmp_path: Path):
    parts = Parts(tmp_path / "ships")
    scores = ships(trained.model, trained.prompts("harmful"), UNDIFFERENTIATED, token_budget=8192, parts=parts)
    means = scores.groupby(["layer", "head"])["score"].mean()
    assert means.idxmax() == tuple(trained.decoy)
    assert means.max() > 1.5 * means.nlargest(2).iloc[1]


@pytest.mark.slow
def test_ships_finds_the_guarding_head_of_each_prompt_beside_the_decoy(trained: Trained, tmp_path: Path):
    parts = Parts(tmp_path / "ships")
    scores = ships(trained.model, trained.prompts("harmful"), UNDIFFERENTIATED, token_budget=8192, parts=parts)
    scores = scores[(scores["layer"] != trained.decoy.layer) | (scores["head"] != trained.decoy.head)]
    best = scores.loc[scores.groupby("query_id")["score"].idxmax()].set_index("query_id")
    a, b = trained.planted
    guards = [
        a if category == Category.GUARDED_A else b for category in table("harmful", *columns("harmful"))["category"]
    ]
    found = [Head(layer, head) for layer, head in zip(best["layer"], best["head"])]
    assert sum(guard == head for guard, head in zip(guards, found)) >= 0.95 * len(guards)


@pytest.mark.slow
def test_saharas_first_step_ranks_the_planted_heads_first_and_second(trained: Trained, tmp_path: Path):
    scores = sahara(
        trained.model,
        trained.prompts("attribution"),
        UNDIFFERENTIATED,
        steps=1,
        rank=1,
        representation="final_norm",
        token_budget=8192,
        parts=Parts(tmp_path / "sahara"),
    )
    best = scores.nlargest(3, "score")
    assert {*zip(best["layer"][:2], best["head"][:2])} == {*trained.planted}
    assert best["score"].iloc[1] > 3 * best["score"].iloc[2]
