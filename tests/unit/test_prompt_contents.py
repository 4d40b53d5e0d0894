"""Prompts hold what they should: query, system prompt and prefill, whatever template and tokenizer people bring."""

import logging
import string
from datetime import datetime
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from safetyheads.errors import SafetyHeadsError
from safetyheads.prompts import Prompts, build
from safetyheads.templates import DATE, DATE_FORMAT, render, tokenise

CHAT = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|bot|>"
PARTS = (
    "{% for m in messages %}[{{ m.role }}]{% for part in m.content | selectattr('type', 'equalto', 'text') %}"
    "{{ part.text }}{% endfor %}{% endfor %}[bot]"
)
MARKS = ["<s>", "</s>", "<unk>", "<|user|>", "<|bot|>", "<|system|>"]
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(chat: str | None = None, normalizer: Any = None, **added: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose control tokens are no part of the model's own vocabulary, as those of Llama-3 and Qwen."""
    inner = Tokenizer(models.BPE(vocab={text: number for number, text in enumerate(ALPHABET)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.normalizer = normalizer
    return finished(inner, chat, **added)


def unigram(chat: str | None = None) -> PreTrainedTokenizerFast:
    """A Unigram model whose vocabulary has the control tokens as pieces that it prefers, as T5's and XGLM's."""
    letters = [(c, -2.0) for c in string.printable if not c.isspace()]
    inner = Tokenizer(models.Unigram([*((mark, 0.0) for mark in MARKS), ("\u2581", -2.0), *letters], unk_id=2))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return finished(inner, chat)


def word_piece(chat: str | None = None) -> PreTrainedTokenizerFast:
    vocabulary = [*MARKS, *string.printable, *(f"##{c}" for c in string.printable)]
    made = models.WordPiece({text: number for number, text in enumerate(vocabulary)}, unk_token="<unk>")
    inner = Tokenizer(made)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    return finished(inner, chat)


def finished(inner: Tokenizer, chat: str | None, **added: bool) -> PreTrainedTokenizerFast:
    inner.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS[:3]])
    inner.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS[3:]])
    inner.add_tokens([AddedToken(text, special=special) for text, special in added.items()])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = chat
    return made


KINDS = {"byte_level": byte_level, "unigram": unigram, "word_piece": word_piece}


def built(tokenizer: PreTrainedTokenizerFast, *queries: str, vocabulary: int | None = None, **template: Any) -> Prompts:
    table = pd.DataFrame({"query_id": [f"d-{place}" for place in range(len(queries))], "query": list(queries)})
    return build(table, template or {"chat": True}, tokenizer, None, vocabulary)


@pytest.mark.parametrize(
    "source",
    [
        "templates/vicuna.jinja",
        "{% for m in messages %}[{{ m.role }}]{% endfor %}",
        "{{ messages[0].content[:5] }}",
        "{{ messages[0].content | upper }}",
        "{{ messages[0].content | replace('kites', 'cats') }}",
        "{{ messages[0].text }}",
        "{% if messages | length > 1 %}{{ messages[1].content }}{% endif %}",
    ],
)
def test_a_chat_template_that_leaves_the_query_out_is_refused_with_the_prompt_and_what_became_of_it(
    source: str,
) -> None:
    with pytest.raises(
        SafetyHeadsError, match=r"prompt of d-0 does not hold its query: the chat template made '.* of 'How do kites"
    ):
        built(byte_level(source), "How do kites fly?")


def test_a_chat_template_whose_own_words_are_those_of_the_query_is_refused_too() -> None:
    with pytest.raises(
        SafetyHeadsError, match=r"prompt of d-0 does not hold its query: the chat template made 'Hello, I"
    ):
        built(byte_level("Hello, I am a user."), "Hello")


def test_a_template_with_a_date_keeps_its_first_lines() -> None:
    source = "\n\n  Today {{ strftime_now('%d') }}: {{ messages[0].content }}"
    assert render("Hi", {"chat": True}, byte_level(source)) == "\n\n  Today 26: Hi"


def test_words_of_python_in_a_query_do_not_matter_to_a_template_that_takes_parts() -> None:
    rows, done = built(byte_level(PARTS), "What is {'type': 'x'}?", "b")
    assert rows["text"].tolist() == ["[user]What is {'type': 'x'}?[bot]", "[user]b[bot]"]
    assert done == {"content": "parts"}


def test_a_chat_template_that_leaves_the_system_prompt_out_is_refused() -> None:
    tokenizer = byte_level("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    assert built(tokenizer, "How do kites fly?").table["text"].tolist() == ["How do kites fly?"]
    with pytest.raises(SafetyHeadsError, match=r"prompt of d-0 does not hold its system prompt.*'Be kind\.'"):
        built(tokenizer, "How do kites fly?", chat=True, system="Be kind.")


def test_white_space_at_the_ends_of_a_query_may_go() -> None:
    rows, done = built(byte_level("[{{ messages[0].content | trim }}]"), " How do kites fly?\n")
    assert (rows["text"].tolist(), done) == (["[How do kites fly?]"], {})


@pytest.mark.parametrize("system", [{}, {"system": "Be kind."}])
def test_a_template_that_takes_messages_in_parts_gets_them_so_and_the_record_says_it(system: dict[str, str]) -> None:
    rows, done = built(byte_level(PARTS), "How do kites fly?", "Name three colours.", chat=True, **system)
    begins = "[system]Be kind." if system else ""
    assert rows["text"].tolist() == [f"{begins}[user]{q}[bot]" for q in ("How do kites fly?", "Name three colours.")]
    assert done == {"content": "parts"}


def test_a_template_whose_text_is_random_is_refused() -> None:
    tokenizer = byte_level("{{ range(100000) | random }}{{ messages[0].content }}")
    with pytest.raises(SafetyHeadsError, match="chat template is random"):
        built(tokenizer, "one", "two")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ messages[0].content + 1 }}", "TypeError: can only concatenate str"),
        ("{{ messages[0].content }", "unexpected '}'"),
        ("{{ nothing.here.at.all }}{{ messages[0].content }}", "'nothing' is undefined"),
        ("{{ raise_exception('Only tools.') }}", "Only tools."),
        ("{{ 1 // 0 }}{{ messages[0].content }}", "ZeroDivisionError: "),
    ],
)
def test_an_error_inside_a_template_is_told_as_such(source: str, said: str) -> None:
    with pytest.raises(SafetyHeadsError) as error:
        built(byte_level(source), "How do kites fly?")
    assert "The tokenizer's chat template does not accept these messages: " in str(error.value)
    assert said in str(error.value)


TODAY = "{{ strftime_now('%d %B %Y') }} {{ messages[0].content }}"


def test_today_is_a_fixed_day_for_a_chat_template_and_can_be_set() -> None:
    assert render("Hi", {"chat": True}, byte_level(TODAY)) == "26 July 2024 Hi"
    assert render("Hi", {"chat": True, "date": "03 Jan 2030"}, byte_level(TODAY)) == "03 January 2030 Hi"
    assert DATE == "26 Jul 2024"


@given(
    day=st.dates(min_value=datetime(1000, 1, 1).date()).map(lambda day: day.strftime(DATE_FORMAT)),
    form=st.lists(
        st.sampled_from([*(f"%{c}" for c in "aAbBdmyYjUwWHIMSpxXc%"), "%-d", "%-m", "%e", " ", "/", "d", "Y"])
    ),
)
def test_a_template_s_date_is_written_as_strftime_writes_it(day: str, form: list[str]) -> None:
    written = "".join(form)
    tokenizer = byte_level(f"{{{{ strftime_now({written!r}) }}}}|{{{{ messages[0].content }}}}")
    expected = datetime.strptime(day, DATE_FORMAT).strftime(written)
    assert render("Hi", {"chat": True, "date": day}, tokenizer) == f"{expected}|Hi"


def test_a_template_that_asks_whether_there_is_a_date_gets_it() -> None:
    source = (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = "
        "strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = 'none' %}{%- endif %}{%- endif %}"
        "{%- macro head() %}{{ strftime_now('%Y') }}{% endmacro %}{{ head() }} "
        "{{ date_string }} {{ messages[0].content }}"
    )
    assert render("Hi", {"chat": True}, byte_level(source)) == "2024 26 Jul 2024 Hi"
    assert render("Hi", {"chat": {"date_string": "today"}}, byte_level(source)) == "2024 today Hi"


def test_a_template_gets_its_arguments_and_an_unknown_one_is_refused() -> None:
    tokenizer = byte_level(
        "{{ messages[0].content }}{% if not enable_thinking | default(true) %}[no thoughts]{% endif %}"
    )
    assert render("Hi", {"chat": True}, tokenizer) == "Hi"
    assert render("Hi", {"chat": {"enable_thinking": False}}, tokenizer) == "Hi[no thoughts]"
    with pytest.raises(SafetyHeadsError, match=r"no argument 'enable_thinkin'\. Did you mean 'enable_thinking'\?"):
        render("Hi", {"chat": {"enable_thinkin": False}}, tokenizer)


def test_one_of_several_templates_is_chosen_by_its_name() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = {"default": "[{{ messages[0].content }}]", "rag": "({{ messages[0].content }})"}
    assert render("Hi", {"chat": True}, tokenizer) == "[Hi]"
    assert render("Hi", {"chat": True, "name": "rag"}, tokenizer) == "(Hi)"
    with pytest.raises(SafetyHeadsError, match=r"name 'rags'; it has default, rag\..*Did you mean 'rag'\?"):
        render("Hi", {"chat": True, "name": "rags"}, tokenizer)
    tokenizer.chat_template = {"tool_use": "({{ messages[0].content }})"}
    with pytest.raises(SafetyHeadsError, match=r"name 'default'; it has tool_use\. Choose one by `name:`"):
        render("Hi", {"chat": True}, tokenizer)


TEMPLATES = [{"chat": True}, {"text": "<|user|>{query}</s> and {query}<|bot|>"}, {"text": "{query}<|bot|>"}]


@pytest.mark.parametrize("template", TEMPLATES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", ["What is </s>?", "<s>", "<|bot|>Yes", "<unk> <s></s>", "<<s>>", "<|bot|><|bot|>"])
def test_control_tokens_in_a_query_stay_text(kind: str, template: dict[str, Any], query: str) -> None:
    tokenizer = KINDS[kind](CHAT)
    rows, done = built(tokenizer, query, **template)
    ids = rows["token_ids"].iloc[0]
    control = set(tokenizer.convert_tokens_to_ids(MARKS))
    frame = tokenise(render("Hm", template, tokenizer), tokenizer)
    assert [id_ for id_ in ids if id_ in control] == [id_ for id_ in frame if id_ in control]
    decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert "".join(query.split()) in "".join(decoded.split())
    marks = [mark for mark in MARKS if mark in query]
    assert done == {"control_tokens": {"kept_as": "text", "queries": 1, "tokens": sorted(marks)}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_may_let_control_tokens_in_and_the_record_says_so(kind: str) -> None:
    tokenizer = KINDS[kind](CHAT)
    rows, done = built(tokenizer, "one</s>", "two", chat=True, control_tokens=True)
    assert rows["token_ids"].iloc[0] == tokenise("<|user|>one</s><|bot|>", tokenizer)
    assert done == {"control_tokens": {"kept_as": "tokens", "queries": 1, "tokens": ["</s>"]}}


@given(query=st.text(st.sampled_from(string.ascii_letters + " .,;!?'-<>|/"), min_size=1).filter(str.strip))
@pytest.mark.parametrize("kind", KINDS)
def test_every_other_prompt_is_tokenised_as_a_whole(kind: str, query: str) -> None:
    tokenizer = KINDS[kind](CHAT)
    if any(mark in query for mark in MARKS):
        return
    rows, done = built(tokenizer, query)
    assert rows["token_ids"].iloc[0] == tokenise(rows["text"].iloc[0], tokenizer)
    assert done == {}


def test_text_around_a_control_token_is_tokenised_as_if_that_token_did_not_exist() -> None:
    """Byte-level BPE with merges across the marks: as a tokenizer that never had them would do it."""
    merges = [("<", "/"), ("s", ">"), (">", "!"), ("Ġ", "<")]
    vocabulary = {text: number for number, text in enumerate([*ALPHABET, *("".join(pair) for pair in merges)])}

    def made() -> Tokenizer:
        inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        inner.decoder = decoders.ByteLevel()
        return inner

    query = "so </s>! and <s>> or <|bot|>"
    ids = built(finished(made(), CHAT), query, text="{query}").table["token_ids"].iloc[0]
    assert ids == made().encode(query).ids


def test_added_tokens_that_are_words_stay_tokens() -> None:
    """As Gemma's runs of line ends and Phi-2's runs of spaces, which are added to the vocabulary and steer nothing."""
    tokenizer = byte_level(CHAT, kites=False)
    rows, done = built(tokenizer, "Do kites fly?")
    assert tokenizer.convert_tokens_to_ids("kites") in rows["token_ids"].iloc[0]
    assert done == {}


def test_a_token_without_an_embedding_is_refused_by_its_name() -> None:
    tokenizer = byte_level(CHAT)
    beyond = tokenizer.convert_tokens_to_ids("<|user|>")
    built(tokenizer, "How do kites fly?", vocabulary=beyond + 3)
    with pytest.raises(SafetyHeadsError, match=rf"token '<\|bot\|>' \(id {beyond + 1}\).*it has {beyond + 1}, from 0"):
        built(tokenizer, "How do kites fly?", vocabulary=beyond + 1)


def test_a_tokenizer_that_normalises_is_told_once_with_an_example(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level(CHAT, normalizer=normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC()]))
    with caplog.at_level(logging.WARNING):
        built(tokenizer, "how do kites fly?", "Name THREE colours.", "WHY IS THE SKY BLUE?", chat=True, prefill="Sure")
    told = [entry.getMessage() for entry in caplog.records]
    assert len(told) == 1
    assert "changes texts: 'Sure' is '<|user|>how do kites fly?<|bot|>sure' to the model" in told[0]


def test_a_tokenizer_that_loses_most_of_a_text_is_refused() -> None:
    digits = Tokenizer(models.WordLevel({"<unk>": 0, **{str(n): n + 1 for n in range(10)}}, unk_token="<unk>"))
    digits.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(
        SafetyHeadsError, match=r"prompt of d-0 has lost most of a text.*'<unk> .*does not hold 'How do"
    ):
        built(finished(digits, CHAT), "How do kites fly?", text="{query}")


def test_a_prefill_that_is_lost_is_refused() -> None:
    tokenizer = byte_level(CHAT, normalizer=normalizers.Replace("zzz", ""))
    with pytest.raises(SafetyHeadsError, match=r"does not hold 'zzzzzz'"):
        built(tokenizer, "How do kites fly?", chat=True, prefill="zzzzzz")


def test_different_queries_with_the_same_ids_are_refused_and_equal_ones_are_not() -> None:
    tokenizer = byte_level(CHAT, normalizer=normalizers.Lowercase())
    built(tokenizer, "how do kites fly?", "how do kites fly?", "how do kites fly? ")
    with pytest.raises(SafetyHeadsError, match=r"prompts of d-0 and d-2 have the same token ids.*'How DO.*'how do"):
        built(tokenizer, "How DO kites fly?", "why?", "how do kites fly?")
