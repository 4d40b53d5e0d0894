"""Mistakes end in one message that names the culprit and what would be right: no traceback, nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from project import DATA, Project, Settings, downloaded, small_study


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


CONFIGURATIONS: dict[str, tuple[Callable[[Settings], object], list[str]]] = {
    "an unknown key": (
        lambda settings: settings["decodings"]["short"].update(max_tokens=9),
        ["decodings.short", "'max_tokens'", "max_new_tokens"],
    ),
    "a data set file that is missing": (
        lambda settings: settings["datasets"]["neutral"].update(path="neutrl.csv"),
        ["datasets.neutral.path", "'neutrl.csv'", "no file"],
    ),
}
"""Two of those in tests/unit/test_mistakes.py."""


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_a_mistake_in_the_configuration_stops_the_run_before_any_job(project: Project, mistake: str) -> None:
    change, said = CONFIGURATIONS[mistake]
    settings = small_study()
    change(settings)
    project.configure(settings)
    output = failure(project)
    assert output.count("The configuration has a problem") == 1
    assert_says(output, said)
    assert not project.results.exists()


def context(length: int) -> Callable[[Project], None]:
    def apply(project: Project) -> None:
        path = project.folder / "tiny_a" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": length}))

    return apply


def dataset(**changes: str) -> Callable[[Project], None]:
    def apply(project: Project) -> None:
        settings = small_study()
        settings["datasets"]["neutral"].update(changes)
        project.configure(settings)

    return apply


def no_such_gpu(project: Project) -> None:
    settings = small_study()
    settings["compute"] = {"device": "cuda:99"}
    project.configure(settings)


DATASET, MODEL = "datasets/neutral.parquet", "models/tiny.json"
COMPLETIONS = "completions/tiny/neutral/plainly/plain/none/short.parquet"

SOURCES: dict[str, tuple[Callable[[Project], object], str, list[str]]] = {
    "a data set without the named column": (
        dataset(query="inptu"),
        DATASET,
        ["neutral.csv has no column 'inptu'", "Its columns: 'input'", "Did you mean 'input'?"],
    ),
    "a wrong checksum": (dataset(sha256="0" * 64), DATASET, ["neutral.csv", "0" * 64, "{sum}"]),
    "a cut off file of weights": (
        lambda project: (project.folder / "tiny_a" / "model.safetensors").write_bytes(b"cut"),
        MODEL,
        ["tiny_a/model.safetensors is not a whole safetensors file"],
    ),
    "a completion longer than the context": (
        context(28),
        COMPLETIONS,
        ["neutral-0002 has 26 tokens", "6 new ones", "context of 28", "Lower `max_new_tokens`"],
    ),
    "a GPU that is not there": (
        no_such_gpu,
        COMPLETIONS,
        ["`compute: device: cuda:99` was asked for", "Use auto or cpu"],
    ),
}


@pytest.mark.parametrize("mistake", SOURCES)
def test_a_mistake_in_the_inputs_ends_the_job_with_one_message(project: Project, mistake: str) -> None:
    from hashlib import sha256

    arrange, target, said = SOURCES[mistake]
    arrange(project)
    output = failure(project, f"results/{target}")
    found = sha256((project.folder / "neutral.csv").read_bytes()).hexdigest()
    assert_says(output, [text.replace("{sum}", found) for text in said])
    assert_nothing_half_written(project)


def test_a_download_with_a_wrong_checksum_shows_both_and_keeps_nothing(project: Project, address: str) -> None:
    from hashlib import sha256

    right, wrong = sha256((DATA / "queries.csv").read_bytes()).hexdigest(), "0" * 64
    downloaded(project, f"{address}/queries.csv", wrong)
    output = failure(project, "results/datasets/neutral.parquet")
    assert_says(output, [f"{address}/queries.csv", right, wrong])
    assert_nothing_half_written(project)
    downloaded(project, f"{address}/queries.csv", right)
    assert project.make("results/datasets/neutral.parquet") == {"datasets_download": 1, "datasets": 1}
    assert len(project.read("datasets/neutral")) == 16


def test_an_address_without_the_file_is_named(project: Project, address: str) -> None:
    downloaded(project, f"{address}/querys.csv", "0" * 64)
    output = failure(project, "results/datasets/neutral.parquet")
    assert_says(output, [f"{address}/querys.csv", "HTTP 404", "Check the address"])
    assert_nothing_half_written(project)


@pytest.mark.parametrize(
    ("artefact", "said"),
    [
        ("ships/tiny/neutral/plainly/undiferentiated", ["'undiferentiated'", "Did you mean 'undifferentiated'?"]),
        ("completions/tiny/neutral/plainly/undifferentiated/mien/short", ["'mien'", "Did you mean 'mine'?"]),
        ("completions/tiny/neutral/plainly/undifferentiated/sahara-3/short", ["sahara-3 needs 3 steps", "only 2"]),
    ],
)
def test_an_artefact_that_cannot_be_is_explained(base: Project, tmp_path: Path, artefact: str, said: list[str]) -> None:
    copied = base.copy(tmp_path / "copied")
    assert_says(failure(copied, f"results/{artefact}.parquet"), said)
    assert_nothing_half_written(copied)


def failure(project: Project, *arguments: str) -> str:
    """What a run that must fail shows; no traceback is among it."""
    result = project.run(*arguments)
    assert result.status != 0, "the run succeeded"
    logs = [path.read_text(encoding="utf-8") for path in project.results.rglob("*.log")]
    for text in (result.output, *logs):
        assert "Traceback" not in text
    return result.output


def assert_says(output: str, said: list[str]) -> None:
    for text in said:
        assert text in output, f"{text!r} is not in:\n{output[-3000:]}"
    assert output.count("ERROR: ") <= 1


def assert_nothing_half_written(project: Project) -> None:
    for path in project.results.rglob("*.parquet"):
        pq.read_table(path, partitioning=None)
    assert project.temporary_files() == []
