"""Task accuracy with heads ablated in memory is that of a model whose weights were changed by hand."""

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.engine.task_accuracy import task_accuracy
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, Kind
from safetyheads.tasks import check_tasks, fetch_tasks

pytest.importorskip("lm_eval")

TINY = Path(__file__).parents[1] / "data" / "tiny_a"
NONE = Ablation(Kind.SCALING)
WORDS = ("kite", "river", "lamp", "bread", "cloud", "stone", "piano", "grass", "boat", "candle")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    items = [
        {"question": f"Which is nearer to {one}?", "choices": [f"a {two}", f"the {one}", two], "gold": at % 3}
        for at, (one, two) in enumerate((one, two) for one in WORDS for two in WORDS if one != two)
    ]
    (folder / "mild.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    lines = [
        *("task: mild", "dataset_path: json", "test_split: test", "output_type: multiple_choice"),
        f"dataset_kwargs: {{data_files: {{test: {folder / 'mild.jsonl'}}}}}",
        *('doc_to_text: "Question: {{question}}\\nAnswer:"', "doc_to_choice: choices", "doc_to_target: gold"),
        *("metric_list:", "  - metric: acc", "  - metric: acc_norm"),
    ]
    (folder / "mild.yaml").write_text("\n".join(lines) + "\n")
    filters = [
        "filter_list:",
        *(f"  - {{name: {name}, filter: [{{function: take_first}}]}}" for name in ("one", "two")),
    ]
    (folder / "twice.yaml").write_text("\n".join([*lines, *filters]).replace("task: mild", "task: twice"))
    (folder / "free.yaml").write_text(
        "\n".join([*lines, "generation_kwargs: {max_gen_toks: 2}"])
        .replace("task: mild", "task: free")
        .replace("multiple_choice", "generate_until")
        .replace("  - metric: acc_norm", "")
        .replace("metric: acc", "metric: exact_match")
        .replace("doc_to_choice: choices\n", "")
    )
    return folder


@pytest.fixture(scope="module")
def tiny() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float64, attn_implementation="sdpa")
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(TINY)


def operated(model: PreTrainedModel, heads: list[Head], ablation: Ablation) -> PreTrainedModel:
    """A copy of the model whose weights are changed: those of a head's queries, or of what is made of its output."""
    changed = copy.deepcopy(model)
    width = changed.config.hidden_size // changed.config.num_attention_heads
    for head in heads:
        attention = changed.model.layers[head.layer].self_attn
        own = slice(head.head * width, (head.head + 1) * width)
        if ablation.kind == Kind.UNDIFFERENTIATED:
            attention.q_proj.weight[own] *= ablation.epsilon
        else:
            attention.o_proj.weight[:, own] *= ablation.epsilon
    return changed


@pytest.mark.parametrize("kind", [Kind.UNDIFFERENTIATED, Kind.SCALING])
def test_ablation_in_memory_is_as_accurate_as_changed_weights(
    kind: Kind, tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tasks: Path
) -> None:
    model, tokenizer = tiny
    heads, ablation = [Head(0, 1), Head(1, 2), Head(1, 3)], Ablation(kind, 1e-5)
    plain = task_accuracy(model, tokenizer, (), ablation, ["mild"], folder=tasks)
    in_memory = task_accuracy(model, tokenizer, tuple(heads), ablation, ["mild"], folder=tasks)
    by_hand = task_accuracy(operated(model, heads, ablation), tokenizer, (), ablation, ["mild"], folder=tasks)
    pd.testing.assert_frame_equal(in_memory, by_hand)
    assert (in_memory["value"] != plain["value"]).any(), "the ablation changes some answers"
    again = task_accuracy(model, tokenizer, (), ablation, ["mild"], folder=tasks)
    pd.testing.assert_frame_equal(plain, again), "nothing of the ablation is left"


def test_each_item_has_a_row_for_each_metric(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tasks: Path
) -> None:
    table = task_accuracy(*tiny, (), NONE, ["mild"], folder=tasks, limit=4, batch_size=3)
    assert table[["metric", "item"]].to_numpy().tolist() == [[m, n] for m in ("acc", "acc_norm") for n in range(4)]
    assert set(table["value"]) <= {0.0, 1.0} and set(table["task"]) == {"mild"}


def test_a_task_that_does_not_exist_is_named_with_the_nearest(tasks: Path) -> None:
    with pytest.raises(SafetyHeadsError, match="no task 'boolqq'.*'boolq'"):
        check_tasks(["mild", "boolqq"], tasks)


def test_a_task_without_choices_is_refused(tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tasks: Path) -> None:
    with pytest.raises(SafetyHeadsError, match="'free' has no metric acc or acc_norm"):
        task_accuracy(*tiny, (), NONE, ["free"], folder=tasks, limit=1)
    with pytest.raises(SafetyHeadsError, match="'free' has no metric acc or acc_norm"):
        fetch_tasks(["free"], tasks)


def test_what_was_fetched_is_told_with_the_sum_of_its_items(tasks: Path) -> None:
    found = fetch_tasks(["mild"], tasks)
    assert found["tasks"]["mild"]["items"] == 90 and len(found["tasks"]["mild"]["sha256"]) == 64
    assert fetch_tasks(["mild", "twice"], tasks)["tasks"]["twice"]["sha256"] == found["tasks"]["mild"]["sha256"]


def test_a_task_with_several_filters_counts_each_item_once(
    tiny: tuple[PreTrainedModel, PreTrainedTokenizerBase], tasks: Path
) -> None:
    twice, once = (task_accuracy(*tiny, (), NONE, [task], folder=tasks, limit=6) for task in ("twice", "mild"))
    assert twice["item"].tolist() == once["item"].tolist() and twice["value"].tolist() == once["value"].tolist()
