"""The record of a result says how it was made, down to what it was made from, and nothing else."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedModel

import safetyheads
from safetyheads.artifacts import files
from safetyheads.artifacts.provenance import LIBRARIES, apart, common, made_from, provenance, together
from safetyheads.artifacts.schemas import SCHEMA_VERSION, STAGES
from safetyheads.config.load import Config
from safetyheads.jobs.records import commit, determining, record_of
from safetyheads.models.describe import describe

STUDIES = {
    "main": {
        **{"models": ["tiny"], "datasets": ["demo_benign"], "templates": ["direct"], "ablations": ["scaling"]},
        **{"plans": ["none"], "decodings": ["greedy"], "judges": ["paper"]},
    }
}
PARAMS = {"code": "abc", "ablation": {"kind": "scaling"}, "dtype": "tf32"}


@pytest.fixture(scope="module")
def description(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.json"
    files.write_json(path, describe(golden / "tiny_a", model="tiny", source="path"))
    return path


def test_it_says_how_a_result_was_made(description: Path, golden: Path, tiny_a: PreTrainedModel) -> None:
    record = record_of(PARAMS, "results", description=description, model=tiny_a)
    assert PARAMS["code"] == "abc", "the rule's own params are left alone"
    assert record["code"] == "abc"
    assert record["config"] == {"ablation": {"kind": "scaling"}, "dtype": "tf32"}
    assert (record["dtype"], record["device"], record["attention"]) == ("tf32", "cpu", "sdpa")
    assert record["kernels"]
    assert record["versions"] == {
        "safetyheads": safetyheads.__version__,
        **{library: version(library) for library in LIBRARIES},
    }
    assert {"scipy", "statsmodels", "torch", "transformers"} <= set(LIBRARIES)
    identity = files.read_json(description)
    assert record["model"]["files"] == identity["files"]
    assert record["model"]["tokenizer_sha256"] == identity["tokenizer_sha256"]
    assert str(golden) not in json.dumps(record), "no path of this machine"
    assert json.loads(json.dumps(record)) == record
    assert {"model", "dtype", "device"}.isdisjoint(record_of(PARAMS, "results"))


def chain(results: Path) -> dict[str, Path]:
    """A data set, its prompts and scores, completions and a verdict: each made from those before."""
    keys = dict.fromkeys(("model", "dataset", "template", "ablation", "plan", "decoding", "judge"), "x")
    rows: dict[str, dict[str, Any]] = {
        "datasets": {"query_id": "x-0000", "query": "q", "category": None, "target": None},
        "prompts": {"query_id": "x-0000", "text": "t", "token_ids": [1]},
        "ships": {
            "query_id": "x-0000",
            "layer": 0,
            "head": 1,
            "score": 0.5,
            "refusal_shift": -0.1,
            "answer_shift": 0.1,
        },
        "completions": {
            **{"query_id": "x-0000", "variant": "x", "heads": [], "sample": 0, "text": "", "token_ids": []},
            **{"n_tokens": 0, "finish_reason": "eos", "paired": None, "first_kl": None, "plain_nll": None},
        },
        "verdicts": {
            **{"query_id": "x-0000", "variant": "x", "sample": 0, "harmful": True, "probability": None, "reason": ""},
            **{"outcome": "complied", "paired": None},
        },
    }
    sources = {"prompts": ["datasets"], "ships": ["prompts"], "completions": ["prompts", "ships"]}
    sources["verdicts"] = ["completions"]
    paths: dict[str, Path] = {}
    for stage, row in rows.items():
        paths[stage] = results / stage / "x.parquet"
        record = record_of({"code": stage}, results, inputs=[paths[source] for source in sources.get(stage, ())])
        files.write(stage, paths[stage], pd.DataFrame([row]), keys, record)
    return paths


def test_a_file_carries_the_records_of_all_it_was_made_from_each_once(tmp_path: Path) -> None:
    paths = chain(tmp_path / "results")
    record = provenance(paths["verdicts"])
    assert record["code"] == "verdicts"
    assert {path: one["code"] for path, one in record["made_from"].items()} == {
        f"{stage}/x.parquet": stage for stage in ("completions", "datasets", "prompts", "ships")
    }
    assert not any("made_from" in one for one in record["made_from"].values())
    found = made_from([paths["verdicts"]], tmp_path / "results")
    assert set(found) == {"verdicts/x.parquet", *record["made_from"]}


def test_the_folder_of_the_results_does_not_matter(tmp_path: Path) -> None:
    here, there = (chain(tmp_path / name / "results")["verdicts"] for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


def test_records_that_are_alike_are_told_once_with_their_files() -> None:
    one, other = {"code": "a"}, {"code": "b"}
    groups = together({"x": one, "y": other, "z": dict(one)})
    assert groups == [{"record": one, "files": ["x", "z"]}, {"record": other, "files": ["y"]}]
    assert apart(groups) == {"x": one, "y": other, "z": one}


def test_a_file_made_from_a_table_of_the_study_carries_what_that_was_made_from(tmp_path: Path) -> None:
    """Tables such as rates.parquet hold the records of their many files together."""
    paths, rates = chain(tmp_path), tmp_path / "rates.parquet"
    before = made_from([paths["verdicts"]], tmp_path)
    row = dict.fromkeys(STAGES["rates"].columns.split()) | {"n": 1}
    files.write("rates", rates, pd.DataFrame([row]), {}, {"code": "rates", "made_from": together(before)})
    assert made_from([rates], tmp_path) == before | {
        "rates.parquet": {"code": "rates", "schema_version": SCHEMA_VERSION}
    }


def test_a_record_of_several_jobs_says_where_they_differ() -> None:
    a100, h100 = ({"code": "1f", "device": device, "config": {"seed": 0}} for device in ("A100", "H100"))
    assert common([a100, a100]) == a100
    assert common([a100, h100, a100]) == {"code": "1f", "device": ["A100", "H100"], "config": {"seed": 0}}
    old, new = ({"versions": {"torch": torch, "numpy": "2"}} for torch in ("2.12", "2.13"))
    assert common([old, new]) == {"versions": {"torch": ["2.12", "2.13"], "numpy": "2"}}


def test_batches_are_kept_by_what_decides_their_numbers_alone(description: Path, tiny_a: PreTrainedModel) -> None:
    settings = Config.model_validate({"models": {"tiny": {"demo": True}}, "studies": STUDIES})
    record = record_of(PARAMS, "results", description=description, model=tiny_a)
    key = determining(record, settings, "tiny")
    other = {**record, "versions": {**record["versions"], "statsmodels": "0.1", "safetyheads": "9"}, "made_from": {}}
    assert determining(other, settings, "tiny") == key, "what has no part in it may change"
    for change in ({"code": "x"}, {"device": "x"}, {"kernels": []}, {"versions": {"torch": "1"}}):
        assert determining(record | change, settings, "tiny") != key
    threads = settings.model_copy(update={"compute": settings.compute.model_copy(update={"threads": 2})})
    assert determining(record, threads, "tiny") != key


def test_the_commit_is_told_and_whether_the_tree_was_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit(tmp_path) == {}, "a copy without git"
    git("init", "-q")
    assert commit(tmp_path) == {}, "no commit yet"
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    assert commit(tmp_path) == {"commit": git("rev-parse", "HEAD"), "clean": True}
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path)["clean"] is True, "what the results follow from is as it was"
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "new.smk").write_text("")
    assert commit(tmp_path)["clean"] is False
    (tmp_path / "inner").mkdir()
    assert commit(tmp_path / "inner") == {}, "a copy within another repository"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) == {}, "no git at all"


def test_the_record_of_a_file_is_in_its_metadata(tmp_path: Path) -> None:
    path = chain(tmp_path)["datasets"]
    text = pq.read_schema(path).metadata[b"safetyheads"]
    assert json.loads(text) == provenance(path)
    assert provenance(path)["schema_version"] == SCHEMA_VERSION
