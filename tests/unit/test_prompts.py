"""Prompts: the query in its template, and the beginning-of-sequence token once, or never where there is none."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from safetyheads.config.catalogue import catalogue
from safetyheads.errors import SafetyHeadsError
from safetyheads.prompts import build
from safetyheads.templates import render, tokenise

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
LIMITED = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m.content }}]{% endfor %}"
)


def tokenizer_of(post: str | None, *, bos: bool = True, chat: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer; `post` is what it adds around a text, such as `<s> $A </s>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if post is not None:
        inner.post_processor = processors.TemplateProcessing(single=post, special_tokens=[("<s>", 0), ("</s>", 1)])
    special = {"eos_token": "</s>", **({"bos_token": "<s>"} if bos else {})}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.chat_template = chat
    return made


ADDS = {"<s> $A": True, "<s> $A </s>": True, "$A </s>": False, None: False}


@pytest.mark.parametrize("post", ADDS)
def test_the_first_token_is_what_the_tokenizer_itself_adds_and_nothing_is_added_behind(post: str | None) -> None:
    tokenizer = tokenizer_of(post)
    plain = tokenizer("Good morning", add_special_tokens=False)["input_ids"]
    assert len(plain) == 12
    assert tokenise("Good morning", tokenizer) == ([0] if ADDS[post] else []) + plain


@pytest.mark.parametrize("post", ADDS)
def test_a_first_token_that_the_text_already_has_is_not_doubled(post: str | None) -> None:
    tokenizer = tokenizer_of(post)
    assert tokenise("<s>Good morning", tokenizer) == [0, *tokenizer("Good morning", add_special_tokens=False).input_ids]


def test_without_such_a_token_there_is_none() -> None:
    tokenizer = tokenizer_of("$A </s>", bos=False)
    assert tokenise("ab", tokenizer) == tokenizer("ab", add_special_tokens=False).input_ids


def test_an_empty_text_is_the_first_token_alone() -> None:
    assert tokenise("", tokenizer_of("<s> $A")) == [0]
    assert tokenise("", tokenizer_of(None)) == []


@given(st.text(max_size=30).filter(lambda text: "<" not in text))
def test_any_text_survives(text: str) -> None:
    tokenizer = tokenizer_of("<s> $A </s>")
    ids = tokenise(text, tokenizer)
    assert ids == tokenizer(text).input_ids[:-1]
    assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


def test_the_golden_ids_are_met(tokenizer: PreTrainedTokenizerBase) -> None:
    """tiny_a's tokenizer adds `<s>`; these ids are in tests/data/tiny_a-generation.json."""
    ids = [1, 353, 269, 359, 262, 271, 379, 274, 479, 398, 349, 289, 362, 17]
    assert tokenise("The baker opens her shop early.", tokenizer) == ids


@pytest.mark.parametrize("start", ["", "<s>"])
@pytest.mark.parametrize("post", ADDS)
def test_a_chat_prompt_begins_with_one_token_whatever_its_template(post: str | None, start: str) -> None:
    tokenizer = tokenizer_of(post, chat=start + CHAT)
    text = render("Hi", {"chat": True}, tokenizer)
    ids = tokenise(text, tokenizer)
    assert ids.count(0) == (1 if start or ADDS[post] else 0)
    assert ids.count(1) == 0
    assert tokenizer.decode(ids, skip_special_tokens=True) == "[user]Hi[bot]"


def test_a_chat_prompt_has_system_query_generation_prompt_and_prefill() -> None:
    tokenizer = tokenizer_of(None, chat=CHAT)
    template = {"chat": True, "system": "Be kind.", "prefill": "Sure, here is"}
    assert render("Hi", template, tokenizer) == "[system]Be kind.[user]Hi[bot]Sure, here is"
    assert render("Hi", {"chat": True, "system": None, "prefill": None}, tokenizer) == "[user]Hi[bot]"


@pytest.mark.parametrize("query", ["{query}", "{}", "{0} %s $A", "{{ messages }}", "{% raw %}", r"\1 \g<0>", "<|x|>"])
def test_a_query_is_taken_literally(query: str) -> None:
    tokenizer = tokenizer_of(None, chat=CHAT)
    simple = {"text": "## Query:{query}\n## Answer:", "prefill": " {query}"}
    assert render(query, simple, tokenizer) == f"## Query:{query}\n## Answer: {{query}}"
    assert render(query, {"chat": True}, tokenizer) == f"[user]{query}[bot]"


def test_a_template_that_names_the_query_twice_has_it_twice() -> None:
    assert render("x", {"text": "{query}, {query}; {}"}, tokenizer_of(None)) == "x, x; {}"


def test_a_missing_chat_template_is_named() -> None:
    with pytest.raises(SafetyHeadsError, match=r"no chat template.*`chat_template:`"):
        render("Hi", {"chat": True}, tokenizer_of(None))


def test_a_chat_template_that_refuses_the_system_role_is_named() -> None:
    tokenizer = tokenizer_of(None, chat=LIMITED)
    assert render("Hi", {"chat": True}, tokenizer) == "[Hi]"
    with pytest.raises(SafetyHeadsError, match=r"does not accept these messages: System role not supported\."):
        render("Hi", {"chat": True, "system": "Be kind."}, tokenizer)


def test_prompts_keep_the_order_and_ids_of_the_queries() -> None:
    queries = pd.DataFrame({"query_id": ["d-1", "d-0"], "query": ["two", "one"]}, index=[7, 3])
    rows, _ = build(queries, {"text": "<{query}>"}, tokenizer_of("<s> $A"), None)
    assert list(rows.columns) == ["query_id", "text", "token_ids"]
    assert rows["query_id"].tolist() == ["d-1", "d-0"]
    assert rows["text"].tolist() == ["<two>", "<one>"]
    assert [len(ids) for ids in rows["token_ids"]] == [6, 6]


def test_a_prompt_longer_than_the_context_is_named() -> None:
    queries = pd.DataFrame({"query_id": ["d-0", "d-1"], "query": ["short", "longer"]})
    tokenizer = tokenizer_of("<s> $A")
    build(queries, {"text": "{query}"}, tokenizer, 7)
    with pytest.raises(SafetyHeadsError, match=r"prompt of d-1 has 7 tokens, but the model's context is 6\. Shorten"):
        build(queries, {"text": "{query}"}, tokenizer, 6)


def test_a_prompt_without_tokens_is_named() -> None:
    queries = pd.DataFrame({"query_id": ["d-0"], "query": [""]})
    with pytest.raises(SafetyHeadsError, match="prompt of d-0 has no tokens"):
        build(queries, {"text": "{query}"}, tokenizer_of(None), None)


def test_a_tokenizer_that_knows_few_letters_still_works() -> None:
    inner = Tokenizer(models.BPE(vocab={"<s>": 0, "o": 1, "x": 2}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    assert tokenise("ox", tokenizer) == [1, 2]


def test_several_tokens_in_front_are_all_kept_and_never_doubled():
    tokenizer = tokenizer_of("<s> </s> $A")
    bare = tokenizer("Bake bread.", add_special_tokens=False)["input_ids"]
    assert tokenise("Bake bread.", tokenizer) == [0, 1, *bare]
    assert tokenise("<s></s>Bake bread.", tokenizer) == [0, 1, *bare]


def test_vicuna_s_format_comes_from_the_catalogue() -> None:
    template = str(getattr(catalogue("models")["vicuna-7b-v1.5"], "chat_template", ""))
    tokenizer = tokenizer_of("<s> $A", chat=template)
    plain, kind = ({"chat": True}, {"chat": True, "system": "Be kind."})
    begins = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
    assert render("Hi", plain, tokenizer) == f"{begins} USER: Hi ASSISTANT:"
    assert render("Hi", kind | {"prefill": " Sure"}, tokenizer) == "Be kind. USER: Hi ASSISTANT: Sure"
    assert tokenise(render("Hi", plain, tokenizer), tokenizer).count(0) == 1


DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}[system]You are made by some.{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[bot]"
)


def test_a_template_s_own_system_prompt_stays_unless_another_is_given() -> None:
    tokenizer = tokenizer_of(None, chat=DEFAULT_SYSTEM)
    assert render("Hi", {"chat": True}, tokenizer) == "[system]You are made by some.[user]Hi[bot]"
    assert render("Hi", {"chat": True, "system": "Be kind."}, tokenizer) == "[system]Be kind.[user]Hi[bot]"


def test_a_tokenizer_without_padding_token_makes_the_same_prompts() -> None:
    queries = pd.DataFrame({"query_id": ["d-0", "d-1"], "query": ["short", "much longer"]})
    without, with_one = tokenizer_of("<s> $A"), tokenizer_of("<s> $A")
    with_one.pad_token = "</s>"
    assert without.pad_token is None
    rows, same = (build(queries, {"text": "{query}"}, tokenizer, None).table for tokenizer in (without, with_one))
    assert rows["token_ids"].tolist() == same["token_ids"].tolist()
    assert [len(ids) for ids in rows["token_ids"]] == [6, 12]
