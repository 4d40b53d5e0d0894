"""Judges with a model in a whole study: each text is judged once, new ones alone later, and kills lose nothing."""

import csv
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from judge_models import KINDS, classifier_model, model_of, tokenizer_of
from project import DATA, Project, Settings, jobs, kill_within_job, parts, shared, small_study

from safetyheads.data_files import read_rows

CELL = "verdicts/tiny/neutral/plainly/undifferentiated/single/short"
JUDGED = "judged/gen/tiny/neutral/plainly"


def save_judges(folder: Path) -> None:
    kind = KINDS["HarmBench, Llama-2"]
    tokenizer = tokenizer_of(kind)
    for name, model in (("gen", model_of(kind, tokenizer)), ("cls", classifier_model(tokenizer))):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "template.txt").write_text(kind.template, encoding="utf-8")


def judging_study() -> Settings:
    """A map of all 16 heads over 20 prompts, which most heads answer as the plain model does; greedy, few tokens."""
    settings = small_study()
    settings["decodings"]["short"] = {"max_new_tokens": 5}
    settings["judges"] = {
        "gen": {"kind": "generative", "path": "gen", "template": "template.txt", "answers": {"yes": 1, "no": 0}},
        "cls": {
            **{"kind": "classifier", "path": "cls", "detects": "refusal", "classes": ["Refusal"]},
            "template": "<|user|>\n{query}\n<|assistant|>\n{answer}",
        },
    }
    settings["studies"]["main"] |= {"plans": ["single"], "judges": ["gen", "cls"]}
    return settings


def twenty(project: Project) -> None:
    with (DATA / "queries.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    more = [[*row[:-1], f"Again, {row[-1]}"] for row in rows[1:5]]
    with (project.folder / "neutral.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*rows, *more])


@pytest.fixture(scope="session")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The completions and verdicts of the map."""

    def run(folder: Path) -> Project:
        project = Project.create(folder, judging_study())
        save_judges(project.folder)
        twenty(project)
        project.make(f"results/{CELL}/gen.parquet", f"results/{CELL}/cls.parquet")
        return project

    return shared(tmp_path_factory, "judged", run)


def judged_now(project: Project, name: str = JUDGED) -> list[int]:
    """How many answers there were, how many were in the old file, and how many were judged, by the log of a job."""
    log = (project.results / "logs" / f"{name}.log").read_text(encoding="utf-8")
    found = re.findall(r"Of (\d+) distinct answers, (\d+) are in the old file, (\d+) are left", log)
    return list(map(int, found[-1]))


def answers(project: Project, *plans: str) -> pd.DataFrame:
    """The distinct answers of the plain model and of plans."""
    folder = project.results / "completions/tiny/neutral/plainly"
    files = [
        folder / "plain/none/short.parquet",
        *(folder / f"undifferentiated/{plan}/short.parquet" for plan in plans),
    ]
    return pd.concat([pd.read_parquet(file)[["query_id", "text"]] for file in files]).drop_duplicates()


def test_every_distinct_text_is_judged_once(mapped: Project) -> None:
    distinct = answers(mapped, "single")
    rows = pd.read_parquet(mapped.results / f"{CELL}/gen.parquet")
    assert rows["query_id"].nunique() == 20 and len(rows) >= 16 * 20
    assert len(distinct) < len(rows) / 2  # most heads change nothing
    for judge in ("gen", "cls"):
        judged = pd.read_parquet(mapped.results / f"judged/{judge}/tiny/neutral/plainly.parquet")
        assert len(judged) == len(distinct) and not judged.duplicated(["query_id", "text_sha256"]).any()
        assert judged_now(mapped, f"judged/{judge}/tiny/neutral/plainly") == [len(distinct), 0, len(distinct)]


def test_verdicts_are_those_of_the_texts(mapped: Project) -> None:
    completions = pd.read_parquet(
        mapped.results / "completions/tiny/neutral/plainly/undifferentiated/single/short.parquet"
    )
    keys = ["query_id", "variant", "sample"]
    for judge in ("gen", "cls"):
        verdicts = pd.read_parquet(mapped.results / f"{CELL}/{judge}.parquet")
        told = completions[[*keys, "text"]].merge(verdicts, on=keys)
        assert len(told) == len(completions)
        assert (told.groupby(["query_id", "text"])[["harmful", "probability", "reason"]].nunique() == 1).all(axis=None)
        assert told["probability"].between(0, 1).all()
    assert (verdicts["outcome"] == "refused").sum() == (
        ~verdicts["harmful"] & (verdicts["outcome"] != "degenerate")
    ).sum()


def test_one_more_plan_is_judged_on_its_new_texts_alone(mapped: Project, tmp_path: Path) -> None:
    project = mapped.copy(tmp_path / "project")
    before = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    verdicts = (project.results / f"{CELL}/gen.parquet").read_bytes()
    settings = judging_study()
    settings["studies"]["main"] |= {"plans": ["single", "mine"], "judges": ["gen"]}
    project.configure(settings)
    made = project.make("measure")
    assert made["judged"] == 1 and made["completions"] == 1
    new = len(answers(project, "single", "mine")) - len(answers(project, "single"))
    total = len(before) + new
    assert judged_now(project) == [total, len(before), new]
    after = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    assert after.merge(before).equals(before.merge(after)) and len(after) == total
    assert (project.results / f"{CELL}/gen.parquet").read_bytes() == verdicts
    settings["studies"]["main"]["plans"] = ["mine"]  # texts that are no longer asked for stay
    project.configure(settings)
    project.make("measure")
    assert len(pd.read_parquet(project.results / f"{JUDGED}.parquet")) == total
    settings["judges"]["gen"]["answers"] = {"no": 1, "yes": 0}  # another judge: everything is judged anew
    project.configure(settings)
    project.make("measure")
    distinct = len(answers(project, "mine"))
    assert judged_now(project) == [distinct, 0, distinct]
    assert len(pd.read_parquet(project.results / f"{JUDGED}.parquet")) == distinct


def test_a_killed_job_goes_on(mapped: Project, tmp_path: Path) -> None:
    project = mapped.copy(tmp_path / "project")
    whole = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    (project.results / f"{JUDGED}.parquet").unlink()
    (project.results / "judged/gen/tiny/neutral/.plainly.known").unlink()
    settings = judging_study()
    settings["compute"] = {"token_budget": 1}  # each answer is a batch of its own
    project.configure(settings)
    kill_within_job(project, JUDGED, 12)
    assert project.run("--unlock").status == 0
    done = len(parts(project, JUDGED))
    finished = project.run(f"results/{JUDGED}.parquet")
    assert finished.status == 0 and jobs(finished.output) == {"judged": 1}
    assert f"{len(whole) - done}/{len(whole) - done}" in finished.output  # what the bar counts
    again = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    assert again[["query_id", "text_sha256", "harmful"]].equals(whole[["query_id", "text_sha256", "harmful"]])
    assert (again["probability"] - whole["probability"]).abs().max() < 1e-5
    assert project.temporary_files() == []


def test_verdicts_that_were_made_elsewhere(mapped: Project, tmp_path: Path) -> None:
    project = mapped.copy(tmp_path / "project")
    settings = judging_study()
    settings["judges"] = {"api": {"kind": "file", "path": "api.csv"}}
    settings["studies"]["main"] |= {"plans": ["mine"], "judges": ["api"]}
    settings["judges"]["api"]["labels"] = "labels.csv"  # answers that people have labelled are to be judged, too
    (project.folder / "labels.csv").write_text('query,text,harmful\nq,"one\rtwo",yes\n', encoding="utf-8", newline="")
    project.configure(settings)
    project.make("to_judge")
    rows = read_rows(project.results / "to_judge/api.csv", "csv", ["query", "text"]).rows
    asked = pd.DataFrame([row.values for row in rows])[["query", "text"]]
    distinct = answers(project, "mine")
    assert len(asked) == len(distinct) + 1 and ("q", "one\rtwo") in set(asked.itertuples(index=False, name=None))
    told = asked.assign(harmful=[("yes", "no")[at % 2] for at in range(len(asked))], probability=0.75)
    told.iloc[1:].to_csv(project.folder / "api.csv", index=False, quoting=csv.QUOTE_ALL)
    refused = project.run("measure")
    assert refused.status != 0 and "has no verdict on 1 of" in refused.output and "snakemake to_judge" in refused.output
    project.make("to_judge")
    assert len(pd.read_csv(project.results / "to_judge/api.csv")) == 1
    told.to_csv(project.folder / "api.csv", index=False, quoting=csv.QUOTE_ALL)
    project.make("measure")
    queries = pd.read_parquet(project.results / "datasets/neutral.parquet").set_index("query_id")["query"]
    verdicts = pd.read_parquet(project.results / "verdicts/tiny/neutral/plainly/plain/none/short/api.parquet")
    texts = pd.read_parquet(project.results / "completions/tiny/neutral/plainly/plain/none/short.parquet")
    by_hand = {(row.query, row.text): row.harmful == "yes" for row in told.itertuples()}
    pairs: Iterator[Any] = zip(texts["query_id"].map(queries), texts["text"])
    assert verdicts["harmful"].tolist() == [by_hand[pair] for pair in pairs]
    assert (verdicts["probability"] == 0.75).all() and (verdicts["reason"] == "as the file says").all()


def test_a_query_with_other_words_is_judged_again(mapped: Project, tmp_path: Path) -> None:
    project = mapped.copy(tmp_path / "project")
    settings = judging_study()
    settings["studies"]["main"] |= {"plans": ["mine"], "judges": ["gen"]}
    project.configure(settings)
    project.make("measure")
    twenty_again = (project.folder / "neutral.csv").read_text(encoding="utf-8").splitlines()
    (project.folder / "neutral.csv").write_text("\n".join([*twenty_again[:-1], "Something else.\n"]), encoding="utf-8")
    rows = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    last = set(rows["query_id"].sort_values().tail(1))
    project.make("measure")
    total, known, left = judged_now(project)
    asked = answers(project, "mine")
    assert total == len(asked) and left == asked["query_id"].isin(last).sum() and known == total - left
    assert project.make("measure") == {}


def fail_within_job(project: Project, cell: str) -> str:
    """Kill the job, as for want of memory, once it has judged something; Snakemake goes on to its own end."""
    deadline = time.monotonic() + 120
    process = project.start(f"results/{cell}.parquet")
    while not parts(project, cell):
        assert process.poll() is None, "the run ended before its job could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    found = [path.parent for path in Path("/proc").glob("[0-9]*/cmdline") if b"judged.py" in content(path)]
    (job,) = (path for path in found if str(project.folder).encode() in content(path / "environ"))
    os.kill(int(job.name), signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode != 0
    return str(output)


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended, or is another user's
        return b""


def test_a_failed_job_of_another_judge_leaves_no_verdicts_of_the_judge_before(mapped: Project, tmp_path: Path) -> None:
    project = mapped.copy(tmp_path / "project")
    whole = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    settings = judging_study()
    settings["compute"] = {"token_budget": 1}
    settings["judges"]["gen"]["answers"] = {"no": 1, "yes": 0}
    project.configure(settings)
    fail_within_job(project, JUDGED)
    assert not (project.results / f"{JUDGED}.parquet").exists()
    settings["judges"] = judging_study()["judges"]  # the judge before: what it said was kept
    project.configure(settings)
    assert project.make(f"results/{JUDGED}.parquet") == {"judged": 1}
    assert judged_now(project) == [len(whole), len(whole), 0]
    assert pd.read_parquet(project.results / f"{JUDGED}.parquet").equals(whole)
    settings["judges"]["gen"]["answers"] = {"no": 1, "yes": 0}
    project.configure(settings)
    assert project.make(f"results/{JUDGED}.parquet") == {"judged": 1}
    now = pd.read_parquet(project.results / f"{JUDGED}.parquet")
    assert judged_now(project) == [len(whole), 0, len(whole)]
    assert ((now["probability"] + whole["probability"] - 1).abs() < 1e-5).all()
