"""The files of judges: templates in other people's code, classifiers, adapters, and what changed in between."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_models import KINDS, classifier_model, model_of, tokenizer_of

from safetyheads.config.catalogue import catalogue
from safetyheads.config.judges import Judge
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.judge_files import describe_judge, judge_folders
from safetyheads.judges.template_files import check_text, entry_of
from safetyheads.judging import CHAT
from safetyheads.models.adapter import merge_adapter
from safetyheads.models.classifier import describe_classifier, load_classifier, window_of
from safetyheads.models.open import open_model

CODE = """
import os
PROMPT = '''one {query}
"two" {answer}'''
OF_JUDGES = {
    "description": "not this",
        "prompt": \"\"\"[INST] {behavior}
---
{generation} [/INST]\"\"\",
    "other": "o",
}
RUN = os.system("false")
"""


@pytest.mark.parametrize(
    ("text", "entry", "found"),
    [
        ("all of it \n", None, "all of it \n"),
        (CODE, "PROMPT", 'one {query}\n"two" {answer}'),
        (CODE, "OF_JUDGES.prompt", "[INST] {behavior}\n---\n{generation} [/INST]"),
        (f"# A card\n\n```python\n{CODE}```\n\nMore 'text' }}\n", "OF_JUDGES.other", "o"),
        (json.dumps({"a": "x {answer} ", "b": "y"}), "a", "x {answer} "),
    ],
)
def test_a_template_is_found_in_a_file(text: str, entry: str | None, found: str) -> None:
    assert entry_of(text, "file", entry) == found


@pytest.mark.parametrize("entry", ["MISSING", "OF_JUDGES.missing", "OF_JUDGES", "RUN"])
def test_a_template_that_is_not_there(entry: str) -> None:
    with pytest.raises(SafetyHeadsError, match=f"file has no text of the name '{entry}'"):
        entry_of(CODE, "file", entry)


def test_another_template_than_the_pinned_one_is_refused() -> None:
    check_text("a ", sha256(b"a ").hexdigest(), "file")
    with pytest.raises(SafetyHeadsError, match="not the one that was pinned"):
        check_text("a", sha256(b"a ").hexdigest(), "file")


def test_the_repository_holds_no_sentence_of_a_judge_s_template() -> None:
    for entry in catalogue("judges").values():
        assert isinstance(entry, Judge)
        if entry.kind == "generative":
            assert entry.template == CHAT or len(entry.template.sha256) == 64  # type: ignore[union-attr]
        else:
            assert len(str(entry.template)) < 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generative judge, a classifier, a decoder that is none, and a template."""
    folder, kind = tmp_path_factory.mktemp("judges"), KINDS["HarmBench, Llama-2"]
    tokenizer = tokenizer_of(kind)
    for name, model in (("gen", model_of(kind, tokenizer)), ("cls", classifier_model(tokenizer))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "template.txt").write_text(kind.template, encoding="utf-8")
    return folder


def generative(folder: Path, **changes: Any) -> Judge:
    settings: dict[str, Any] = {"kind": "generative", "path": str(folder / "gen"), "answers": {"yes": 1, "no": 0}}
    return Judge.model_validate(settings | {"template": str(folder / "template.txt")} | changes)


def test_a_judge_is_described_and_a_changed_file_is_noticed(folder: Path) -> None:
    judge = generative(folder)
    found = describe_judge(judge, "mine")
    assert found["template"] == KINDS["HarmBench, Llama-2"].template and found["adapter"] is None
    assert found["template_sha256"] == sha256(found["template"].encode()).hexdigest()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found["model"]["files"])
    assert judge_folders(judge, found, 0.0) == (folder / "gen", None)
    found["model"]["files"]["config.json"] = "0" * 64
    with pytest.raises(SafetyHeadsError, match="is not the file that was described"):
        judge_folders(judge, found, 0.0)


def test_a_classifier_is_described_with_its_labels(folder: Path) -> None:
    found = describe_classifier(folder / "cls")
    assert found["class"] == "ModernBertForSequenceClassification"
    assert found["labels"] == {"0": "Non-refusal", "1": "Refusal"} and found["longest"] == 512
    with pytest.raises(SafetyHeadsError, match="holds LlamaForCausalLM, and no sequence classifier"):
        describe_classifier(folder / "gen")


def test_a_classifier_without_its_head_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in (folder / "cls").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "classifier" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SafetyHeadsError, match="it would judge at random"):
        load_classifier(tmp_path, dtype="float32", device="cpu")
    assert load_classifier(folder / "cls", dtype="float32", device="cpu").config.id2label[1] == "Refusal"


def test_an_adapter_is_merged_when_the_judge_is_loaded(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    wrapped: Any = get_peft_model(
        model_of(KINDS["HarmBench, Llama-2"], tokenizer_of(KINDS["HarmBench, Llama-2"])),
        LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    for name, weight in wrapped.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weight, std=0.3)
    wrapped.save_pretrained(tmp_path)
    judge = generative(folder, adapter={"path": str(tmp_path)})
    found = describe_judge(judge, "mine")
    assert judge_folders(judge, found, 0.0) == (folder / "gen", tmp_path)
    loaded = open_model(folder / "gen", dtype="float32", attention="auto", device="cpu", threads=1)
    ids = torch.tensor([[5, 9, 20, 7, 30]])
    with torch.inference_mode():
        plain = loaded(ids).logits
        merged, own = merge_adapter(loaded, tmp_path)(ids).logits, wrapped.eval()(ids).logits
    assert torch.allclose(merged, own, atol=1e-4) and not torch.allclose(merged, plain, atol=1e-2)
    state = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(state | {"r": 3}))
    with pytest.raises(SafetyHeadsError, match="is not the file that was described"):
        judge_folders(judge, found, 0.0)
    with pytest.raises(SafetyHeadsError, match="does not fit its model"):
        merge_adapter(loaded, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(SafetyHeadsError, match=r"adapter_model.safetensors is not there"):
        merge_adapter(loaded, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "keywords"}, "no list; .*kind: keywords needs"),
        ({"kind": "keywords", "list": "paper", "path": "x"}, "found path with kind: keywords"),
        ({"kind": "file"}, "no path; .*kind: file needs"),
        ({"kind": "classifier", "repo": "a/b", "classes": ["x"], "template": "{answer}"}, "no detects; .*kind"),
        ({"kind": "generative", "repo": "a/b"}, "no answers; .*kind: generative needs"),
        ({"kind": "generative", "answers": {"yes": 1, "no": 0}}, "exactly one of path, repo"),
        ({"kind": "generative", "repo": "a/b", "answers": {"a": 0.5, "b": 0}}, "none has harmfulness 1"),
        ({"kind": "generative", "repo": "a/b", "answers": {"a": 2, "b": 0}}, "less than or equal to 1"),
        ({"kind": "generative", "path": "a", "revision": "b", "answers": {"a": 1, "b": 0}}, "found revision together"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Judge.model_validate(settings)


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ],
)
def test_no_window_is_longer_than_the_positions_of_a_classifier(
    tmp_path: Path, config: dict[str, Any], most: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert window_of(tmp_path, most, 300) == most and window_of(tmp_path, None, 300) == 300
    with pytest.raises(SafetyHeadsError, match=f"`window` is {most + 1}.* allowed: at most {most}"):
        window_of(tmp_path, most + 1, 300)


def test_a_classifier_that_tells_no_positions_has_any_window(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert window_of(tmp_path, 9999, 512) == 9999 and window_of(tmp_path, None, 4000) == 512
