"""A family's folder whose tokenizer was damaged is refused, by one message that names the cause."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from members import TEXTS, with_tokenizer
from registry import FAMILIES, Family

from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe
from safetyheads.models.tokenizer import load_tokenizer
from safetyheads.prompts import Prompts, build

QUERIES = pd.DataFrame({"query_id": [f"q-{at}" for at in range(len(TEXTS))], "query": TEXTS})
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


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


def prompts(folder: Path, **template: Any) -> Prompts:
    described = describe(folder, model="m", source="path")
    tokenizer = load_tokenizer(folder, described["tokenizer"])
    return build(QUERIES, template, tokenizer, described["context_length"], described["vocab_size"])


def vocabulary_gone(folder: Path) -> None:
    for name in VOCABULARIES:
        (folder / name).unlink(missing_ok=True)


def template_without_the_content(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}[{{ m.role }}]{% endfor %}")


def added_tokens(folder: Path) -> None:
    described = describe(folder, model="m", source="path")
    tokenizer = load_tokenizer(folder, "auto")
    known = len(tokenizer)
    tokenizer.add_tokens([f"<|added{number}|>" for number in range(described["vocab_size"] - known + 1)])
    tokenizer.chat_template = f"<|added{described['vocab_size'] - known}|>{{{{ messages[0].content }}}}"
    tokenizer.save_pretrained(folder)


DAMAGES: dict[Callable[[Path], None], str] = {
    vocabulary_gone: "The folder has no vocabulary. Copy tokenizer.json",
    template_without_the_content: "The prompt of q-0 does not hold its query: the chat template made '[user]' of ",
    added_tokens: "for which the model has no embedding",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_tokenizer_is_refused_with_the_cause(folder: Path, damage: Callable[[Path], None]) -> None:
    (folder / "chat_template.jinja").write_text("[{{ messages[0].content }}]")
    assert prompts(folder, chat=True).table["text"].tolist() == [f"[{text}]" for text in TEXTS]
    damage(folder)
    with pytest.raises(SafetyHeadsError) as error:
        prompts(folder, chat=True)
    assert DAMAGES[damage] in str(error.value)
