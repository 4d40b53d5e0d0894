"""Answers that end while a model thinks: found by the ids of its tags, in prompts and in answers, never in queries."""

from typing import Any

import pandas as pd
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges.thinking import tag_ids, unfinished
from safetyheads.prompts import build

TAGS = {"open": "<think>", "close": "</think>"}
CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[bot]"
QUERIES = ["How do kites fly?", "What does <think> mean, and </think>?", "Say <think>"]


def tokenizer(*added: str, merges: list[tuple[str, str]] | None = None, special: bool = False) -> Any:
    """A byte-level tokenizer with these tokens of their own, and merges of letters."""
    merges = merges or []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *("".join(pair) for pair in merges)]
    inner = Tokenizer(models.BPE(vocab={piece: at for at, piece in enumerate(pieces)}, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner)
    made.add_tokens([AddedToken(text, special=special, normalized=False) for text in added])
    return made


OWN = {
    "tokens of their own": tokenizer("<think>", "</think>"),
    "control tokens": tokenizer("<think>", "</think>", special=True),
    "a token that holds the line end, too": tokenizer("<think>\n", "</think>", "<think>"),
}
TEXT = {
    "letters": tokenizer(),
    "letters joined with the line end": tokenizer(merges=[(">", "Ċ"), (">", "<"), (">", "O"), ("<", "/")]),
    "one tag alone": tokenizer("<think>"),
}
ALL = OWN | TEXT


def ends(
    kind: str, answer: str, template: dict[str, Any], queries: list[str] = QUERIES, tags: dict[str, str] = TAGS
) -> list[bool]:
    """Whether the answer to each query counts as unfinished."""
    made = ALL[kind]
    made.chat_template = CHAT
    asked = pd.DataFrame({"query_id": [f"q-{at}" for at in range(len(queries))], "query": queries})
    prompts = build(asked, template, made, 4096).table
    answers = [made(answer, add_special_tokens=False)["input_ids"]] * len(queries)
    completions = pd.DataFrame(
        {"query_id": asked["query_id"].tolist(), "token_ids": answers}, index=range(7, 7 + len(queries))
    )
    found = unfinished(completions, prompts, tags, template, made)
    assert found.index.equals(completions.index) and found.dtype == bool
    return found.tolist()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("template", [{"chat": True}, {"text": "{query}"}, {"text": "Q: {query}\nA:"}])
@pytest.mark.parametrize(
    ("answer", "open_at_end"),
    [
        ("Kites fly by the wind.", False),
        ("<think>\nThe wind", True),
        ("<think>The wind\n</think>\n\nBy the wind.", False),
        ("<think>Or so", True),
        ("<think></think>", False),
        ("<think></think><think>", True),
        ("<think>a</think>b<think>\n\nc", True),
        ("</think>By the wind.", False),
        ("", False),
    ],
)
def test_an_answer_is_unfinished_if_the_last_tag_in_it_opens(
    kind: str, template: dict[str, Any], answer: str, open_at_end: bool
) -> None:
    assert ends(kind, answer, template) == [open_at_end] * len(QUERIES)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("template", [{"chat": True, "prefill": "<think>\n"}, {"text": "{query}\n<think>"}])
def test_a_tag_that_the_prompt_opens_is_open_until_the_answer_closes_it(kind: str, template: dict[str, Any]) -> None:
    assert ends(kind, "The wind, I think", template) == [True] * len(QUERIES)
    assert ends(kind, "The wind.</think> By the wind.", template) == [False] * len(QUERIES)


@pytest.mark.parametrize("kind", ALL)
def test_a_prompt_that_opens_and_closes_it_at_once_does_not_think(kind: str) -> None:
    template = {"chat": True, "prefill": "<think>\n\n</think>\n\n"}
    assert ends(kind, "By the wind.", template) == [False] * len(QUERIES)
    assert ends(kind, "<think>", template) == [True] * len(QUERIES)


def test_a_query_opens_a_tag_only_where_the_template_lets_control_tokens_in() -> None:
    template = {"chat": True, "control_tokens": True}
    assert ends("control tokens", "By the wind.", template) == [False, False, True]


def test_the_ids_of_a_tag_are_those_of_tokens_that_hold_it_whole() -> None:
    made = OWN["a token that holds the line end, too"]
    assert tag_ids("<think>", made) == {made.convert_tokens_to_ids(text) for text in ("<think>", "<think>\n")}
    assert tag_ids("</think>", made) == {made.convert_tokens_to_ids("</think>")}
    assert tag_ids("<think>", TEXT["letters"]) == set()


def test_ids_whose_text_merely_looks_like_a_tag_are_no_tag_where_it_has_a_token() -> None:
    made = OWN["tokens of their own"]
    spelled = tokenizer()("<think>", add_special_tokens=False)["input_ids"]
    assert made.decode(spelled) == "<think>"
    completions = pd.DataFrame({"query_id": ["q"], "token_ids": [spelled]})
    prompts = pd.DataFrame({"query_id": ["q"], "token_ids": [[40]]})
    assert unfinished(completions, prompts, TAGS, {"text": "{query}"}, made).tolist() == [False]


def test_a_tag_that_the_tokenizer_does_not_know_is_an_error_in_words() -> None:
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    with pytest.raises(SafetyHeadsError, match="does not know the thinking tag '<think>': it reads it as '.UNK.'"):
        tag_ids("<think>", made)


def models_of(**models_: dict[str, Any]) -> dict[str, Any]:
    study = {"models": list(models_), "datasets": ["demo_benign"], "templates": ["simple"], "plans": ["none"]}
    study |= {"ablations": ["scaling"], "decodings": ["greedy"], "judges": ["paper"]}
    return {"models": models_, "studies": {"main": study}}


def test_tags_are_those_of_the_model_else_of_its_repository_in_the_catalogue_else_of_what_it_is_derived_from() -> None:
    own = {"open": "[THINK]", "close": "[/THINK]"}
    config = load_config(
        models_of(
            plain={"demo": True},
            taught={"demo": True, "thinking": own},
            pinned={"repo": "Qwen/Qwen3-0.6B", "revision": "c1899de289a04d12100db370d81485cdf75e47ca"},
            other={"repo": "Qwen/Qwen3-0.6B", "thinking": own},
            derived={"attention_from": "plain", "rest_from": "taught"},
        )
    )
    assert config.thinking("plain") == {}
    assert config.thinking("taught") == config.thinking("other") == config.thinking("derived") == own
    assert config.thinking("pinned") == config.thinking("qwen3-0.6b") == TAGS


@pytest.mark.parametrize(
    ("thinking", "said"),
    [
        ({"open": "<think>"}, r"models\.x\.thinking\.close"),
        ({"open": " ", "close": "b"}, r"models\.x\.thinking\.open: found ' '"),
        ({"open": "t", "close": "t"}, "found 't' for both open and close; allowed: two different tags"),
    ],
)
def test_tags_that_cannot_be_are_refused(thinking: dict[str, str], said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        load_config(models_of(x={"demo": True, "thinking": thinking}))
