"""`snakemake annotation` on a study that was run: the files for people, on request alone, and nothing else."""

import pandas as pd
from project import Project, small_study

from safetyheads.judges.labels import CONDITIONS, read_labels, seal

MADE = ["annotation/index.html", "annotation/sample.csv"]


def made(project: Project) -> list[str]:
    return sorted(str(path.relative_to(project.results)) for path in project.results.glob("annotation/*"))


def test_the_files_are_made_on_request_alone_and_stand_for_all_answers(project: Project) -> None:
    assert made(project) == []
    before = project.artefacts()
    assert project.make("annotation") == {"annotation": 1}
    assert made(project) == MADE
    assert project.artefacts() == before, "nothing else was made again"
    assert project.make("annotation") == {}
    assert project.make() == {}
    rows = pd.read_csv(project.results / "annotation/sample.csv", dtype=str, keep_default_na=False)
    answers = pd.read_parquet(project.results / "completions").assign(
        condition=lambda table: table["ablation"].where(table["ablation"] == "plain", "ablated")
    )
    units = answers.drop_duplicates(["query_id", "condition", "text"])
    assert len(rows) == len(units), "all are drawn where there are few"
    assert sorted(rows["text"]) == sorted(units["text"])
    assert set(rows["query"]) == set(project.read("datasets/neutral")["query"])
    opened = [next(c for c in CONDITIONS if seal(name, c) == told) for name, told in zip(rows["id"], rows["sealed"])]
    assert sorted(opened) == sorted(units["condition"])
    page = (project.results / "annotation/index.html").read_text(encoding="utf-8")
    assert all(name in page for name in rows["id"])
    for text in (page, rows.to_csv()):
        assert "ships-1" not in text and "undifferentiated" not in text and "neutral" not in text


def test_another_size_draws_again_and_labels_that_were_made_stay_valid(project: Project) -> None:
    settings = small_study()
    project.configure(settings | {"annotation": {"size": 2}})
    failed = project.run("annotation")
    assert failed.status != 0
    assert "annotation: size: found 2" in failed.output or "annotation: size: found 2" in (
        project.results / "logs/annotation.log"
    ).read_text(encoding="utf-8")
    project.configure(settings)
    project.make("annotation")
    path = project.results / "annotation/sample.csv"
    first = pd.read_csv(path, dtype=str, keep_default_na=False)
    labels = project.folder / "labels.csv"
    first.assign(label="refused", annotator="Ada").to_csv(labels, index=False)
    project.configure(settings | {"annotation": {"size": len(first) - 1, "seed": 3}})
    assert project.make("annotation") == {"annotation": 1}
    second = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert len(second) == len(first) - 1
    assert set(second["id"]) < set(first["id"])
    known = set(read_labels(labels)[["query", "text"]].itertuples(index=False, name=None))
    assert set(second[["query", "text"]].itertuples(index=False, name=None)) <= known
