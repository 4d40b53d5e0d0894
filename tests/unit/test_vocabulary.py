"""A model's vocabulary: there, whole and its own, or refused when the model is described."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from safetyheads.config.catalogue import catalogue
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe
from safetyheads.models.tokenizer import load_tokenizer
from safetyheads.templates import render, tokenise

CLASSES = (
    *("LlamaTokenizer", "GPT2Tokenizer", "Qwen2Tokenizer", "GemmaTokenizer", "T5Tokenizer", "GPTNeoXTokenizer"),
    *("BertTokenizer", "CohereTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"),
)
TEXTS = (
    "How do kites fly?",
    "two  spaces ",
    "lines\n\nand\ttabs",
    "na\u00efve \U0001f642",
    "x = 12.5;",
    "USER: Hi ASSISTANT:",
)


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(golden / "tiny_a", copy, copy_function=shutil.copyfile)
    return copy


def refusal(folder: Path) -> str:
    with pytest.raises(SafetyHeadsError) as error:
        describe(folder, model="m", source="path")
    return str(error.value)


def change(path: Path, of: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    of(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("class_", CLASSES)
def test_a_vocabulary_that_was_not_copied_is_refused_whatever_the_class(folder: Path, class_: str) -> None:
    """transformers makes an empty tokenizer of most of these classes, and says nothing."""
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", lambda values: values.update(tokenizer_class=class_))
    assert f"The tokenizer in {folder} " in (said := refusal(folder))
    assert "The folder has no vocabulary. Copy tokenizer.json" in said


def empty(values: dict[str, Any]) -> None:
    values["model"] |= {"vocab": {}, "merges": []}


@pytest.mark.parametrize("of", [empty, dict.clear], ids=["empty", "nothing"])
def test_a_vocabulary_without_tokens_is_refused(folder: Path, of: Callable[[dict[str, Any]], Any]) -> None:
    change(folder / "tokenizer.json", of)
    assert "Its vocabulary (tokenizer.json) is empty, damaged or of a kind that transformers does not read" in refusal(
        folder
    )


def test_a_note_that_git_lfs_left_in_place_of_the_vocabulary_is_told(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:9e55\nsize 4\n")
    assert refusal(folder).endswith("tokenizer.model was left behind by git-lfs: run `git lfs pull` in the folder.")


def test_a_vocabulary_with_tokens_beyond_the_model_s_embeddings_is_another_model_s(folder: Path) -> None:
    change(folder / "tokenizer.json", lambda values: values["model"]["vocab"].update(zzz=600))
    assert "that of another model: it has 509 tokens with ids up to 600, where the model has 512" in refusal(folder)


def test_a_vocabulary_of_fewer_tokens_than_half_of_the_embeddings_is_another_model_s(folder: Path) -> None:
    def few(values: dict[str, Any]) -> None:
        vocabulary = values["model"]["vocab"]
        values["model"] |= {"vocab": {text: id_ for text, id_ in vocabulary.items() if id_ < 250}, "merges": []}

    change(folder / "tokenizer.json", few)
    assert "that of another model: it has 246 tokens with ids up to 249, where the model has 512" in refusal(folder)


def test_an_end_of_sequence_that_the_vocabulary_lacks_is_another_model_s(folder: Path) -> None:
    def without_last(values: dict[str, Any]) -> None:
        values["model"]["merges"] = []
        values["model"]["vocab"] = {text: id_ for text, id_ in values["model"]["vocab"].items() if id_ != 511}

    change(folder / "tokenizer.json", without_last)
    describe(folder, model="m", source="path")
    change(folder / "generation_config.json", lambda values: values.update(eos_token_id=[2, 511]))
    assert "the model's files end a sequence with id 511, which the tokenizer does not have" in refusal(folder)


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary by SentencePiece as Llama-2's: BPE, unknown characters as bytes, text as it is."""
    prefix = tmp_path_factory.mktemp("sentencepiece") / "tokenizer"
    text = "how do kites fly on a windy day and why is the sky so blue in summer name three colours of a meadow "
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text[place:] + text[:place] for place in range(len(text))]),
        model_prefix=str(prefix),
        vocab_size=330,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def only_sentencepiece(folder: Path, vocabulary: Path, **settings: Any) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    shutil.copyfile(vocabulary, folder / "tokenizer.model")
    own = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>"}
    values = own | {"eos_token": "</s>", "unk_token": "<unk>"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("text", TEXTS)
def test_a_vocabulary_by_sentencepiece_alone_gives_sentencepiece_s_own_ids(
    folder: Path, sentencepiece_model: Path, text: str
) -> None:
    only_sentencepiece(folder, sentencepiece_model)
    assert describe(folder, model="m", source="path")["tokenizer"] == "auto"
    tokenizer = load_tokenizer(folder, "auto", str(getattr(catalogue("models")["vicuna-7b-v1.5"], "chat_template", "")))
    own = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    for prompt in (text, render(text, {"chat": True}, tokenizer)):
        assert tokenise(prompt, tokenizer) == [own.bos_id(), *own.encode(prompt)]


def test_a_vocabulary_by_sentencepiece_that_is_cut_off_is_refused(folder: Path, sentencepiece_model: Path) -> None:
    only_sentencepiece(folder, sentencepiece_model)
    whole = (folder / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(whole[: len(whole) // 3])
    assert "Its vocabulary (tokenizer.model) is empty, damaged" in refusal(folder)


def test_a_vocabulary_by_tiktoken_names_the_package_that_reads_it(folder: Path) -> None:
    lines = "\n".join(f"{base64.b64encode(bytes([number])).decode()} {number}" for number in range(256))
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_text(lines)
    assert "`pip install tiktoken`" in refusal(folder)


def test_further_chat_templates_are_used_and_described(folder: Path) -> None:
    before = describe(folder, model="m", source="path")
    (folder / "chat_template.jinja").write_text("[{{ messages[0].content }}]")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("({{ messages[0].content }})")
    after = describe(folder, model="m", source="path")
    assert set(after["files"]) - set(before["files"]) == {"chat_template.jinja", "additional_chat_templates/rag.jinja"}
    assert after["tokenizer_sha256"] != before["tokenizer_sha256"]
    tokenizer = load_tokenizer(folder, after["tokenizer"])
    assert render("Hi", {"chat": True, "name": "rag"}, tokenizer) == "(Hi)"
    assert render("Hi", {"chat": True}, tokenizer) == "[Hi]"


def test_a_chat_template_that_would_not_be_used_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("[{{ messages[0].content }}]")
    assert load_tokenizer(folder, "auto", "[{{ messages[0].content }}]").chat_template == "[{{ messages[0].content }}]"
    for kind in ("auto", "fast"):
        with pytest.raises(
            SafetyHeadsError, match=r"has a chat template of its own, so the model's `chat_template:` would"
        ):
            load_tokenizer(folder, kind, "({{ messages[0].content }})")
