"""Of files that a study reads, their content counts: neither dates nor places, in whatever way they come or go."""

import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from project import DATA, Project, downloaded, small_study

from safetyheads.artifacts.provenance import provenance

OLD = 1_700_000_000
"""A time, in seconds since 1970, long before any result."""


def age(path: Path) -> None:
    os.utime(path, (OLD, OLD))


def moved_over(project: Project, name: str, content: bytes) -> None:
    """Replace a file by an older one, as `mv` does."""
    new = project.folder / f"{name}.new"
    new.write_bytes(content)
    age(new)
    new.replace(project.folder / name)


def copied(project: Project, name: str) -> Path:
    return shutil.copytree(project.folder / name, project.folder / f"{name}.copy")


def weights_of(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for file in folder.iterdir():
        age(file)


def older_queries(project: Project) -> None:
    project.write_queries("other.csv", 4)
    moved_over(project, "neutral.csv", (project.folder / "other.csv").read_bytes())


def queries_by_a_link(project: Project) -> None:
    project.write_queries("other.csv", 4)
    age(project.folder / "other.csv")
    (project.folder / "neutral.csv").unlink()
    (project.folder / "neutral.csv").symlink_to("other.csv")


def older_weights(project: Project) -> None:
    whole = (project.folder / "tiny_a" / "model.safetensors").read_bytes()
    moved_over(project, "tiny_a/model.safetensors", whole[:-1] + b"\x01")


def another_folder(project: Project) -> None:
    """A folder with an older model takes the place of the first: only the folder's name has changed."""
    other = copied(project, "tiny_a")
    weights_of(other)
    (project.folder / "tiny_a").rename(project.folder / "before")
    other.rename(project.folder / "tiny_a")


def a_link_to_another_folder(project: Project) -> None:
    other = copied(project, "tiny_a")
    weights_of(other)
    (project.folder / "tiny_a").rename(project.folder / "before")
    (project.folder / "tiny_a").symlink_to(other.name)


def a_template_more(project: Project) -> None:
    path = project.folder / "tiny_a" / "chat_template.jinja"
    path.write_text("{{ messages[0].content }}")
    age(path)


def a_file_less(project: Project) -> None:
    (project.folder / "tiny_a" / "generation_config.json").unlink()


CHANGES: dict[str, tuple[Callable[[Project], object], str]] = {
    "queries that are older": (older_queries, "datasets/neutral"),
    "a link to older queries": (queries_by_a_link, "datasets/neutral"),
    "weights that are older": (older_weights, "models/tiny"),
    "a folder in place of another": (another_folder, "models/tiny"),
    "a link in place of a folder": (a_link_to_another_folder, "models/tiny"),
    "one more file of a model": (a_template_more, "models/tiny"),
    "one file of a model less": (a_file_less, "models/tiny"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_content_is_read_whatever_its_date(project: Project, change: str) -> None:
    apply, made = CHANGES[change]
    apply(project)
    assert made in project.pending()


def the_same_bytes(project: Project) -> None:
    for name in ("neutral.csv", "tiny_a/model.safetensors"):
        moved_over(project, name, (project.folder / name).read_bytes())


def another_place(project: Project) -> None:
    settings = small_study()
    settings["models"]["tiny"]["path"] = "elsewhere/model"
    settings["datasets"]["neutral"]["path"] = "elsewhere/queries.csv"
    (project.folder / "elsewhere").mkdir()
    (project.folder / "tiny_a").rename(project.folder / "elsewhere" / "model")
    (project.folder / "neutral.csv").rename(project.folder / "elsewhere" / "queries.csv")
    project.configure(settings)


def links_to_the_same(project: Project) -> None:
    for name in ("neutral.csv", "tiny_a"):
        (project.folder / name).rename(project.folder / f"real-{name}")
        (project.folder / name).symlink_to(f"real-{name}")


def new_dates_everywhere(project: Project) -> None:
    """As `cp -r` to another machine leaves them, results in whatever order."""
    for path in sorted(project.folder.rglob("*"), reverse=True):
        if ".snakemake" not in path.parts:
            os.utime(path)


SAME: dict[str, Callable[[Project], object]] = {
    "the same bytes again": the_same_bytes,
    "another place": another_place,
    "links": links_to_the_same,
    "a copy with new dates": new_dates_everywhere,
}


@pytest.mark.parametrize("change", SAME)
def test_the_same_content_runs_nothing_again(project: Project, change: str) -> None:
    SAME[change](project)
    assert project.make() == {}


def test_an_older_file_is_what_the_results_are_of_and_is_read_once(project: Project) -> None:
    older_queries(project)
    assert project.make("results/datasets/neutral.parquet") == {"datasets": 1}
    assert len(project.read("datasets/neutral")) == 4
    assert project.make("results/datasets/neutral.parquet") == {}


def test_no_sum_of_a_param_and_no_date_is_in_an_artefact(project: Project) -> None:
    (remembered,) = (project.folder / ".snakemake" / "safetyheads" / "sums").iterdir()
    assert remembered.name == "tiny.json"
    for content in project.artefacts().values():
        assert b'"content"' not in content


QUERIES = "results/datasets/neutral.parquet"


@pytest.fixture
def fetched(tmp_path: Path, address: str) -> Project:
    """A project whose data set was downloaded and read."""
    project = Project.create(tmp_path / "fetched")
    downloaded(project, f"{address}/queries.csv", sha256((DATA / "queries.csv").read_bytes()).hexdigest())
    assert project.make(QUERIES) == {"datasets_download": 1, "datasets": 1}
    return project


def test_a_download_that_was_deleted_is_not_fetched_again(fetched: Project) -> None:
    assert fetched.make(QUERIES) == {}
    (fetched.results / "datasets" / ".neutral.download").unlink()
    assert fetched.make(QUERIES) == {}


def test_a_download_that_was_replaced_by_an_older_file_is_noticed(fetched: Project) -> None:
    moved_over(fetched, "results/datasets/.neutral.download", b"input\nAnother query?\n")
    result = fetched.run(QUERIES)
    assert result.status != 0
    assert "Wrong checksum for results/datasets/.neutral.download (delete it to fetch it again)" in result.output
    (fetched.results / "datasets" / ".neutral.download").unlink()
    assert fetched.make(QUERIES) == {"datasets_download": 1, "datasets": 1}


def test_another_checksum_fetches_the_file_again(fetched: Project, address: str) -> None:
    downloaded(fetched, f"{address}/bench_queries.csv", sha256((DATA / "bench_queries.csv").read_bytes()).hexdigest())
    assert fetched.make("-n", QUERIES) == {"datasets_download": 1, "datasets": 1}


def test_a_pilot_is_recorded_with_the_number_of_all_queries(tmp_path: Path) -> None:
    settings = small_study()
    settings["datasets"]["neutral"]["sample"] = {"n": 2}
    project = Project.create(tmp_path / "pilot", settings)
    project.write_queries("neutral.csv", 9)
    project.make(QUERIES)
    record = provenance(project.folder / QUERIES)
    assert record["queries"] == 9
    assert record["config"]["dataset"]["sample"] == {"n": 2, "seed": 0}
    whole = Project.create(tmp_path / "whole")
    whole.write_queries("neutral.csv", 9)
    whole.make(QUERIES)
    assert "queries" not in provenance(whole.folder / QUERIES)
    both = project.read("datasets/neutral").merge(whole.read("datasets/neutral"))
    assert len(both) == 2, "the same queries have the same ids"
