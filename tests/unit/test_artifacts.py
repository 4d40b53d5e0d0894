"""Artefacts: an exact schema, the same bytes for the same inputs, whole or not at all; parts that never mix."""

import json
import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyheads.artifacts import files
from safetyheads.artifacts.files import digest
from safetyheads.artifacts.parts import Parts
from safetyheads.artifacts.provenance import provenance
from safetyheads.artifacts.schemas import SCHEMA_VERSION, STAGES, keys, schema, table
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head

KEYS = {"model": "m", "dataset": "d", "template": "t", "ablation": "a", "plan": "p", "decoding": "g", "judge": "j"}
HEAD = {"layer": "int16", "head": "int16"}
COMPARED = ("plain", "ablated", "effect", "effect_low", "effect_high", "p_value", "p_adjusted")
EFFECTS = {
    "n": "int64",
    **{f"{name}{end}": "double" for end in ("", "_asr", "_refused") for name in COMPARED},
    **dict.fromkeys(("control", "over_control", "over_control_low", "over_control_high"), "double"),
    **dict.fromkeys(("p_control", "p_control_least"), "double"),
    "draws": "int64",
    **dict.fromkeys(("over_control_asr", "p_control_asr", "uniform", "potency", "interaction"), "double"),
    **dict.fromkeys(("degenerate", "harmless_kl", "over_refusal"), "double"),
    "leaks": "int64",
    "selected_here": "bool",
    **dict.fromkeys(("corrected_asr", "corrected_low", "corrected_high"), "double"),
    **dict.fromkeys(("corrected_effect", "corrected_effect_low", "corrected_effect_high"), "double"),
    "corrected_by": "string",
}
MAP = {
    **dict.fromkeys(("plain", "highest", "lowest", "expected_highest", "expected_lowest"), "double"),
    **dict.fromkeys(("spread", "expected_spread", "p_value", "cochran_q", "cochran_p"), "double"),
    **dict.fromkeys(("up", "down"), "int64"),
}
OF_HEAD = {
    **dict.fromkeys(("plain", "ablated", "effect"), "double"),
    **dict.fromkeys(("up", "down"), "int64"),
    **dict.fromkeys(("p_value", "p_adjusted"), "double"),
}
CONTRACT: dict[str, dict[str, str]] = {
    "datasets": dict.fromkeys(("dataset", "query_id", "query", "category", "target"), "string"),
    "prompts": {
        **dict.fromkeys(("model", "dataset", "template", "query_id", "text"), "string"),
        "token_ids": "list<element: int32>",
    },
    "ships": {
        **dict.fromkeys(("model", "dataset", "template", "ablation", "query_id"), "string"),
        **HEAD,
        **dict.fromkeys(("score", "refusal_shift", "answer_shift"), "double"),
    },
    "sahara": {
        **dict.fromkeys(("model", "dataset", "template", "ablation"), "string"),
        "step": "int16",
        **HEAD,
        "score": "double",
        "selected": "bool",
    },
    "scores": {
        **dict.fromkeys(("method", "model", "dataset", "template", "ablation"), "string"),
        "step": "int16",
        **HEAD,
        **{"score": "double", "support": "double", "selected": "bool"},
    },
    "attention": {
        **dict.fromkeys(("model", "dataset", "template", "query_id"), "string"),
        **HEAD,
        "to_query": "double",
    },
    "attacks": {
        **dict.fromkeys(("model", "dataset", "ablation", "clean", "attack"), "string"),
        **HEAD,
        "n": "int64",
        **{
            f"{name}_{end}": "double"
            for name in ("score", "refusal_shift", "to_query")
            for end in ("clean", "attack", "change", "change_low", "change_high")
        },
    },
    "completions": {
        **dict.fromkeys(
            ("model", "dataset", "template", "ablation", "plan", "decoding", "query_id", "variant"), "string"
        ),
        "heads": "list<element: struct<layer: int16, head: int16>>",
        "sample": "int32",
        "text": "string",
        "token_ids": "list<element: int32>",
        "n_tokens": "int32",
        **{"finish_reason": "string", "paired": "string", "first_kl": "double", "plain_nll": "double"},
    },
    "verdicts": {
        **dict.fromkeys([*KEYS, "query_id", "variant"], "string"),
        "sample": "int32",
        "harmful": "bool",
        "probability": "double",
        **dict.fromkeys(("reason", "outcome", "paired"), "string"),
    },
    "rates": {
        **dict.fromkeys([*KEYS, "variant"], "string"),
        "n": "int64",
        **dict.fromkeys(("harmful", "asr", "low", "high", "delta", "delta_low", "delta_high"), "double"),
        **dict.fromkeys(("p_value", "p_adjusted", "refused", "degenerate", "unfinished", "short", "other"), "double"),
        **dict.fromkeys(("coherent_asr", "coherent_low", "coherent_high"), "double"),
        **dict.fromkeys(("corrected_asr", "corrected_low", "corrected_high"), "double"),
        **{"corrected_by": "string", "asr_lowest": "double", "asr_highest": "double"},
    },
    "judged": {
        **dict.fromkeys(("judge", "model", "dataset", "template", "query_id", "text_sha256"), "string"),
        **{"harmful": "bool", "probability": "double", "reason": "string"},
    },
    "labelled": {
        **dict.fromkeys(("judge", "query", "text", "condition", "annotator", "stratum"), "string"),
        **{"weight": "double", "label": "bool", "judged": "bool"},
    },
    "calibration": {
        **dict.fromkeys(("judge", "condition"), "string"),
        **dict.fromkeys(("n", "unsure", "tp", "fp", "tn", "fn"), "int64"),
        **{f"{name}_share": "double" for name in ("tp", "fp", "tn", "fn")},
        **{f"{name}{end}": "double" for name in ("sensitivity", "specificity") for end in ("", "_low", "_high")},
        **{"kappa": "double", "annotators": "int64", "pairs": "int64", "people_kappa": "double"},
        **dict.fromkeys(("corrected_by", "reason"), "string"),
    },
    "agreement": {
        **dict.fromkeys(("model", "condition", "first", "second", "outcome"), "string"),
        **dict.fromkeys(("n", "both_harmful", "only_first", "only_second", "neither"), "int64"),
        **dict.fromkeys(("agreement", "kappa"), "double"),
    },
    "paper_vs_ours": {
        **dict.fromkeys(("place", "quantity", "model", "dataset", "template", "ablation", "plan"), "string"),
        **{"paper": "double", "spread": "double", "about": "string"},
        **dict.fromkeys(("our_model", "our_dataset", "our_template", "our_ablation", "decoding", "judge"), "string"),
        **{"n": "int64", "ours": "double", "low": "double", "high": "double"},
        **{"agreement": "string", "why": "string", "coherent": "double"},
    },
    "effects": {**dict.fromkeys(KEYS, "string"), **EFFECTS},
    "effects_by_category": {**dict.fromkeys([*KEYS, "category"], "string"), **EFFECTS},
    "maps": {
        **dict.fromkeys(KEYS, "string"),
        **dict.fromkeys(("n", "n_heads", "needed"), "int64"),
        **{f"{name}{end}": kind for end in ("", "_asr") for name, kind in MAP.items()},
    },
    "maps_by_head": {
        **dict.fromkeys(KEYS, "string"),
        **HEAD,
        "n": "int64",
        **{f"{name}{end}": kind for end in ("", "_asr") for name, kind in OF_HEAD.items()},
    },
    "concentration": {
        **dict.fromkeys([key for key in KEYS if key != "plan"], "string"),
        **dict.fromkeys(("method", "source"), "string"),
        "n_heads": "int64",
        **dict.fromkeys(("gini", "top_share", "effective_heads"), "double"),
        **dict.fromkeys(("largest", "heads_asr", "heads_coherent"), "int64"),
        **{f"{name}_correlation": "double" for name in ("score", "refusal_shift", "answer_shift", "highest")},
        **{f"{name}_correlation_asr": "double" for name in ("score", "refusal_shift", "answer_shift", "highest")},
        **dict.fromkeys(("p_refusal", "p_refusal_benign", "refusal_auroc"), "double"),
    },
    "stability": {
        **dict.fromkeys(("model", "dataset", "template", "ablation", "method"), "string"),
        "n": "int64",
        **HEAD,
        **{"share": "double", "chosen": "bool", "margin": "double"},
    },
    "utility": {
        **dict.fromkeys(("model", "dataset", "template", "ablation", "plan", "task", "metric"), "string"),
        **{"item": "int32", "value": "double"},
    },
    "noise": {"model": "string", "judge": "string", "n": "int64", "texts": "double", "verdicts": "double"},
}
VALUES: dict[str, Any] = {
    "string": "x",
    "int16": 3,
    "int32": 70_000,
    "int64": 5,
    "double": 0.5,
    "bool": True,
    "list<element: int32>": [1, 2],
    "list<element: struct<layer: int16, head: int16>>": [{"layer": 1, "head": 2}],
}


def rows_of(stage: str, count: int = 2) -> pd.DataFrame:
    """Rows of a stage without the keys of its path, the columns in another order."""
    columns = {name: VALUES[kind] for name, kind in reversed(CONTRACT[stage].items()) if name not in KEYS}
    return pd.DataFrame([columns] * count)


@pytest.mark.parametrize("stage", CONTRACT)
def test_a_file_has_the_columns_and_types_of_the_contract_keys_first(stage: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.parquet"
    files.write(stage, path, rows_of(stage), KEYS | {"shard": "1"}, {"code": "c"})
    found = pq.read_schema(path)
    assert [(field.name, str(field.type)) for field in found] == list(CONTRACT[stage].items())
    assert {column.compression for column in columns_of(path)} == {"ZSTD"}
    read = files.read(path)
    assert len(read) == 2
    for name in set(CONTRACT[stage]) & set(KEYS):
        assert set(read[name]) == {KEYS[name]}


def test_the_contract_is_that_of_the_stages_and_of_the_readme() -> None:
    assert set(CONTRACT) == {stage for stage, known in STAGES.items() if known.columns}
    for stage, columns in CONTRACT.items():
        assert schema(stage).names == list(columns)
        assert schema(stage).names[: len(keys(stage))] == keys(stage)
    text = (Path(__file__).parents[2] / "results" / "README.md").read_text(encoding="utf-8")
    assert table() in text, "put what `python -m safetyheads.artifacts.schemas` prints into results/README.md"


def columns_of(path: Path) -> list[Any]:
    group = pq.ParquetFile(path).metadata.row_group(0)
    return [group.column(number) for number in range(group.num_columns)]


def test_a_file_without_rows_has_the_same_types(tmp_path: Path) -> None:
    files.write("completions", tmp_path / "a", rows_of("completions").head(0), KEYS, {})
    assert [(field.name, str(field.type)) for field in pq.read_schema(tmp_path / "a")] == list(
        CONTRACT["completions"].items()
    )


def test_a_missing_column_or_a_wrong_value_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(KeyError, match="score"):
        files.write("ships", path, rows_of("ships").drop(columns="score"), KEYS, {})
    with pytest.raises(pa.ArrowException):
        files.write("ships", path, rows_of("ships").assign(layer=40_000), KEYS, {})
    with pytest.raises(pa.ArrowException):
        files.write("ships", path, rows_of("ships").assign(score="high"), KEYS, {})
    assert list(tmp_path.iterdir()) == []


def test_not_a_number_is_null(tmp_path: Path) -> None:
    rows = rows_of("verdicts").assign(probability=[np.nan, 0.25])
    files.write("verdicts", tmp_path / "a", rows, KEYS, {})
    table = pq.read_table(tmp_path / "a")
    assert table["probability"].to_pylist() == [None, 0.25]
    assert rows["probability"].isna().tolist() == [True, False], "the caller's rows are left alone"


def test_rows_of_some_variants_are_those_whose_whole_name_matches(tmp_path: Path) -> None:
    names = ["none", "plain", "plain-1", "plainly", "L00H01", "a-plain"]
    files.write("completions", tmp_path / "a", rows_of("completions", 6).assign(variant=names), KEYS, {})
    found = files.read(tmp_path / "a", ["variant", "text"], variants=r"none|plain(-\d+)?")
    assert found["variant"].tolist() == names[:3]
    assert list(found) == ["variant", "text"]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    record = {"code": "c", "config": {"b": 1, "a": [1, 2]}}
    for name in ("a", "b"):
        files.write("completions", tmp_path / name, rows_of("completions", 500), KEYS, record)
        record = dict(reversed(record.items()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    files.write("completions", tmp_path / "c", rows_of("completions", 500), KEYS, {})
    assert (tmp_path / "c").read_bytes() != (tmp_path / "a").read_bytes()


def test_the_provenance_can_be_read(tmp_path: Path) -> None:
    record = {"code": "c", "config": {"steps": 3, "name": "na\u00efve"}}
    files.write("ships", tmp_path / "a", rows_of("ships"), KEYS, record)
    assert provenance(tmp_path / "a") == {"schema_version": SCHEMA_VERSION, **record}
    metadata = pq.read_schema(tmp_path / "a").metadata
    assert set(metadata) == {b"safetyheads"}
    assert json.loads(metadata[b"safetyheads"])["code"] == "c"


def test_pandas_reads_a_folder_of_a_stage_as_one_table_and_no_parts(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        path = tmp_path / "ships" / model / "d" / "t" / "a.parquet"
        files.write("ships", path, rows_of("ships"), KEYS | {"model": model}, {"code": model})
        Parts(path, model).save("000000", np.zeros(3))
        (path.parent / ".a.parquet.123").write_bytes(b"half a file of a job that was killed")
    table = pd.read_parquet(tmp_path / "ships")
    assert list(table.columns) == list(CONTRACT["ships"])
    assert table["model"].tolist() == ["m1", "m1", "m2", "m2"]


def test_a_file_is_read_whole_or_by_columns_whatever_its_folders_are_called(tmp_path: Path) -> None:
    path = tmp_path / "score=3" / "a.parquet"
    files.write("ships", path, rows_of("ships"), KEYS, {})
    assert list(files.read(path, ["score", "query_id"]).columns) == ["score", "query_id"]
    assert files.read(path)["score"].tolist() == [0.5, 0.5]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    files.write("ships", path, rows_of("ships"), KEYS, {})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SafetyHeadsError, match=r"a\.parquet is not a whole artefact .*Delete it and run again"):
        files.read(path)


@pytest.mark.parametrize("existing", [None, "old"])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(existing: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    if existing:
        files.write_text(path, existing)

    def half(temporary: Path) -> None:
        temporary.write_text("hal")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        files.replace(path, half)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == ([("a.txt", "old")] if existing else [])


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(path.read_text()))

    def slow(temporary: Path) -> None:
        temporary.write_text("ne")
        seen.append(path.read_text())
        assert temporary.name.startswith("."), "readers of the folder must not see it"
        temporary.write_text("new")

    with path.open() as reader:
        files.replace(path, slow)
        assert reader.read() == "old"
    assert seen == ["old", "old"], "flushed to disk before it gets its name"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_is_sorted_and_read_back(tmp_path: Path) -> None:
    value = {"b": [1, None], "a": {"d": "na\u00efve", "c": 2.5}}
    files.write_json(tmp_path / "a.json", value)
    files.write_json(tmp_path / "b.json", dict(reversed(value.items())))
    assert files.read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_equal_values_have_equal_digests_and_others_do_not() -> None:
    def value(score: float = 0.5, heads: tuple[Head, ...] = (Head(0, 1),), **more: Any) -> list[Any]:
        table = pd.DataFrame({"query_id": ["q"], "token_ids": [np.array([1, 2], dtype=np.int32)], "score": [score]})
        return [{"b": 1, "a": {"x": None}, **more}, table, heads]

    assert digest(value()) == digest(value())
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    others = [value(0.25), value(heads=(Head(1, 0),)), value(heads=()), value(c=1)]
    assert len({digest(value()), *map(digest, others)}) == 5


def test_parts_are_kept_until_they_are_removed(tmp_path: Path) -> None:
    output = tmp_path / "stage" / "a.parquet"
    parts = Parts(output, "same", 1)
    assert parts.load("000000") is None
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    parts.save("000000", array)
    again = Parts(output, "same", 1)
    loaded = again.load("000000")
    assert loaded is not None
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, array)
    assert [path.name for path in again.folder.iterdir()] == ["000000.npy"]
    again.remove()
    assert list(output.parent.iterdir()) == []
    again.remove()


def test_parts_of_other_settings_are_not_used_but_stay_until_the_artefact_is_whole(tmp_path: Path) -> None:
    first, other = Parts(tmp_path / "a.parquet", "old"), Parts(tmp_path / "b.parquet", "old")
    first.save("000000", np.zeros(1))
    other.save("000000", np.ones(1))
    second = Parts(tmp_path / "a.parquet", "new")
    assert second.load("000000") is None
    second.save("000000", np.ones(2))
    again = Parts(tmp_path / "a.parquet", "old")
    assert again.load("000000") is not None, "who comes back to the first settings ends with what there was"
    again.remove()
    assert not first.folder.exists()
    assert not second.folder.exists()
    assert other.load("000000") is not None


def test_a_part_that_could_not_be_written_does_not_exist(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "a.parquet", "same")
    with pytest.raises(ValueError, match="pickle"):
        parts.save("000000", np.array([{}], dtype=object))
    assert parts.load("000000") is None
    assert list(parts.folder.iterdir()) == []


def copy_of_a_job(output: Path, seed: int, rounds: int) -> None:
    """Make the same artefact again and again from 30 parts, each now and then a little late."""
    chance = random.Random(seed)
    for number in range(rounds):
        path = output.with_name(f"{number}.txt")
        parts, total = Parts(path, "same"), 0.0
        for name in range(30):
            part = parts.load(f"{name:06d}")
            if part is None:
                part = np.full(2000, float(name + number))
                parts.save(f"{name:06d}", part)
            total += part.sum()
            time.sleep(chance.choice([0, 0, 0, 0.002]))
        files.write_text(path, f"{total}")
        parts.remove()


def test_copies_of_a_job_that_work_at_once_all_succeed_and_leave_the_same_whole_file(tmp_path: Path) -> None:
    rounds, context = 12, multiprocessing.get_context("spawn")
    copies = [context.Process(target=copy_of_a_job, args=(tmp_path / "x", seed, rounds)) for seed in range(4)]
    for copy in copies:
        copy.start()
    for copy in copies:
        copy.join()
    assert [copy.exitcode for copy in copies] == [0] * len(copies)
    made = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert made == {f"{n}.txt": f"{sum(2000.0 * (name + n) for name in range(30))}" for n in range(rounds)}
