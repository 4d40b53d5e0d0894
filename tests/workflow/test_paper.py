"""config/paper.yaml: the experiments of the paper are planned on a machine with neither network nor GPU."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from project import REPOSITORY, Project, jobs

from safetyheads.config.catalogue import FOLDER
from safetyheads.config.load import Config, load_config
from safetyheads.jobs.cells import Cells


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> str:
    project = Project.create(tmp_path_factory.mktemp("paper") / "project")
    result = project.run("--dry-run", "--quiet", "rules", configfile="config/paper.yaml")
    assert result.status == 0, result.output[-5000:]
    return result.output


def test_the_hours_of_both_models_are_told_and_count_the_jobs_that_are_planned(planned: str) -> None:
    rows = {
        name: (int(count), float(hours))
        for name, count, hours in re.findall(r"^  (\S+) +(\d+) .* ([\d.]+)$", planned, re.MULTILINE)
    }
    models = ("llama-2-7b-chat", "vicuna-7b-v1.5")
    assert set(rows) >= {*models, "together"}
    stats = jobs(planned)
    of_models = sum(stats.get(rule, 0) for rule in ("checks", "ships", "sahara", "completions", "completions_part"))
    assert rows["together"][0] == sum(rows[name][0] for name in rows if name != "together") == of_models
    assert all(1 < rows[model][1] < 100 for model in models)
    assert "unknown" not in planned


def settings() -> Config:
    return load_config(yaml.safe_load((REPOSITORY / "config" / "paper.yaml").read_text()), Path())


def test_it_has_the_experiments_of_the_paper() -> None:
    studies = settings().studies
    kinds = {name: study.experiment for name, study in studies.items()}
    assert (
        kinds.items()
        >= {
            **{"figure-2": "asr", "figure-4a": "doses", "figure-4b": "maps", "figure-5": "overlap", "figure-6a": "asr"},
            **{"figure-11": "doses", "figure-12": "doses", "figure-13": "distribution"},
            **{"figure-6b": "utility", "table-1": "parameters", "table-2": "hours"},
            **{"table-3": "doses", "table-5": "doses", "table-7": "asr"},
        }.items()
    )
    figure = studies["figure-2"]
    assert figure.models == ["llama-2-7b-chat", "vicuna-7b-v1.5"]
    assert figure.datasets == ["advbench", "jailbreakbench", "malicious_instruct"]
    assert figure.ablations == ["undifferentiated", "scaling"]
    assert figure.decodings == ["greedy", "top5"]
    assert all(settings().decoding(name).max_new_tokens == 128 for name in figure.decodings)
    templates = {name for study in studies.values() for name in study.templates}
    assert templates == {"direct", "simple", "chat", "chat_system", "urial", "sure"}


@pytest.mark.parametrize(("place", "study"), [(f"table-{n}", f"table-{n}") for n in (3, 5, 7)] + [("figure-2",) * 2])
def test_every_published_rate_is_measured_by_the_study_of_its_name(place: str, study: str) -> None:
    published = pd.read_csv(FOLDER / "published.csv", dtype=str, keep_default_na=False)
    rows = published[published["place"] == place]
    measured = {cell[:5] for cell in Cells(settings(), [study]).all}
    for row in rows.to_dict("records"):
        for dataset in row["dataset"].split():
            assert (row["model"], dataset, row["template"], row["ablation"], row["plan"]) in measured


def test_an_experiment_can_be_made_alone_and_one_of_scores_generates_nothing(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    result = project.run("figure-5", "--dry-run", "--quiet", "rules", configfile="config/paper.yaml")
    assert result.status == 0, result.output[-5000:]
    planned = jobs(result.output)
    assert planned["experiments"] == 1 and planned["sahara"] == planned["ships"] == 8
    assert not {"completions", "completions_part", "verdicts", "rates"} & set(planned)
