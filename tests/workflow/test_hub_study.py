"""A model from Hugging Face, through Snakemake: the first run downloads, later ones need no network."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hub_stand_in import COMMIT, always, serving
from project import DATA, Project, jobs, small_study

TOKEN = "hf_aVerySecretTokenOfTheUser"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project.create(tmp_path / "project")
    settings = small_study()
    settings["models"] = {"tiny": {"repo": "some/model", "revision": "main", "dtype": "float32"}}
    settings["studies"]["main"]["plans"] = ["none", "ships-1"]
    made.configure(settings)
    return made


def test_only_the_download_needs_a_network(project: Project, tmp_path: Path) -> None:
    ships = "results/ships/tiny/neutral/plainly/undifferentiated.parquet"
    model = Path(shutil.copytree(DATA / "tiny_a", tmp_path / "model"))
    with serving(model=model) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        online |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        project.environment.update(online)
        hub.refuse = always(403, X_Error_Code="GatedRepo")
        refused = project.run("-p")
        assert refused.status != 0
        assert "Accept its licence" in refused.output
        hub.refuse = lambda *_: None
        fetched = project.run("-p", "results/models/tiny.json")
        assert fetched.status == 0, fetched.output
        assert project.describe("tiny")["revision"] == COMMIT
        asked = len(hub.requests)
        computed = project.run("-p", ships)  # online, but what computes asks for nothing
        assert computed.status == 0, computed.output
        assert len(hub.requests) == asked
    (project.folder / ships).unlink()
    offline = project.run(ships)  # the hub is gone, and main is only a name in the cache
    assert offline.status == 0, offline.output
    for text in (refused.output, fetched.output, computed.output, offline.output):
        assert TOKEN not in text
    kept = [path for path in project.folder.rglob("*") if path.is_file()]
    assert not [path for path in kept if TOKEN.encode() in path.read_bytes()]
    weights = next((tmp_path / "home").rglob("snapshots/*/model.safetensors")).resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    (project.folder / ships).unlink()
    changed = project.run(ships)
    assert changed.status != 0
    assert re.search(r"model\.safetensors is not the file that was described", changed.output)


TASK = """
task: sweet
dataset_path: some/questions
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: gold
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


def test_the_data_of_tasks_are_fetched_once_and_the_model_asks_no_network(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    settings = small_study()
    settings["studies"] = {"useful": settings["studies"]["main"] | {"experiment": "utility", "plans": ["none"]}}
    settings["utility"] = {"tasks": ["sweet"], "folder": "tasks"}
    project.configure(settings)
    (project.folder / "tasks").mkdir()
    (project.folder / "tasks" / "sweet.yaml").write_text(TASK)
    questions = tmp_path / "questions"
    questions.mkdir()
    items = [{"question": f"Which is sweeter, {n}?", "choices": ["sugar", "salt"], "gold": n % 2} for n in range(4)]
    (questions / "test.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with serving(questions=questions) as hub:
        online = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        project.environment.update(online | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"})
        hub.refuse = always(503)
        refused = project.run("results/utility_tasks.json")
        assert refused.status != 0 and "the data of sweet cannot be fetched or read" in refused.output
        hub.refuse = lambda *_: None
        fetched = project.run("results/utility_tasks.json")
        assert fetched.status == 0, fetched.output
        asked = len(hub.requests)
        made = project.run("useful")
        assert made.status == 0, made.output
        assert len(hub.requests) == asked, "what computes asks for nothing"
        assert "utility" not in jobs(project.run("useful", "--dry-run", "--quiet", "rules").output)
        (project.folder / "tasks" / "sweet.yaml").write_text(TASK.replace("Question:", "Asked:"))
        assert project.run("results/utility_tasks.json").status == 0  # and the run ends here, before the model is asked
        assert jobs(project.run("useful", "--dry-run", "--quiet", "rules").output)["utility"] == 1
    table = pd.read_csv(project.folder / "results/experiments/useful/table.csv")
    assert table[["task", "metric", "n"]].to_numpy().tolist() == [["sweet", "acc", 4]]
