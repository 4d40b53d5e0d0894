"""config/all-experiments.yaml: every experiment has a table and a figure, which show what is known of the models."""

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from project import Project, shared

pytestmark = pytest.mark.long

FILE = "config/all-experiments.yaml"
STUDIES = yaml.safe_load((Path(__file__).parents[2] / FILE).read_text())["studies"]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def run(folder: Path) -> Project:
        project = Project.create(folder)
        project.make(configfile=FILE)
        return project

    return shared(tmp_path_factory, "all-experiments", run).folder / "results" / "all-experiments"


def table(experiments: Path, study: str) -> pd.DataFrame:
    return pd.read_csv(experiments / "experiments" / study / "table.csv")


@pytest.mark.parametrize("study", STUDIES)
def test_every_experiment_has_a_table_and_a_figure_and_stands_on_the_page(experiments: Path, study: str) -> None:
    place = experiments / "experiments" / study
    assert len(table(experiments, study))
    assert "\\begin{tabular}" in (place / "table.tex").read_text()
    assert len(ElementTree.fromstring((place / "figure.svg").read_text()).findall(".//{*}svg")) >= 1
    assert study in (experiments / "report" / "index.html").read_text()


def test_a_map_sees_the_heads_that_guard_alone_and_none_of_two_that_stand_in_for_each_other(experiments: Path) -> None:
    maps = table(experiments, "figure-4b").set_index("model")
    assert maps.loc["demo", "first"] in ("L01H03", "L02H06") and maps.loc["demo", "up"] == 2
    assert maps.loc["backup", "up"] == 0


def test_safety_is_in_the_attention_weights_of_the_demo(experiments: Path) -> None:
    rates = table(experiments, "figure-6a").set_index(["model", "dataset"])["coherent_asr"]
    assert rates["demo", "demo_harmful"] <= 0.05 and rates["base_attention", "demo_harmful"] >= 0.9


def test_ordinary_requests_are_told_from_others_whatever_is_ablated(experiments: Path) -> None:
    utility = table(experiments, "figure-6b")
    assert set(utility["ablation"]) == {"plain", "undifferentiated", "scaling", "mean_query", "mean_key", "mean_output"}
    assert (utility["n"] == 60).all() and (utility["accuracy"] >= 0.95).all()


def test_heads_of_one_data_set_are_those_of_another_and_leave_benign_requests_alone(experiments: Path) -> None:
    rows = table(experiments, "transfer").set_index(["model", "dataset", "plan"])
    assert rows.loc[("demo", "demo_harmful", "sahara-2@demo_attribution"), "coherent_asr"] >= 0.95
    assert rows.loc[("demo", "demo_benign", "sahara-2@demo_attribution"), "coherent_asr"] >= 0.95
    assert not rows.loc[("demo", "demo_harmful", "sahara-2@demo_attribution"), "selected_here"]
    assert rows.loc[("demo", "demo_harmful", "sahara-2"), "selected_here"]


def test_two_checkpoints_tell_what_training_added(experiments: Path) -> None:
    (row,) = table(experiments, "checkpoints").to_dict("records")
    assert (row["before"], row["after"], row["needed_before"]) == ("base", "demo", 0)
    assert row["plain_before"] >= 0.95 and row["plain_after"] <= 0.05 and abs(row["rank_correlation"]) < 0.9


def test_hours_are_those_of_scores_and_of_answers(experiments: Path) -> None:
    hours = table(experiments, "table-2")
    assert set(hours["work"]) == {"ships", "sahara", "none", "sahara-3", "ships-1", "single"}
    assert (hours["hours"] > 0).all() and set(hours["device"]) == {"cpu"}


def test_nothing_here_is_a_number_of_the_papers(experiments: Path) -> None:
    assert set(pd.read_parquet(experiments / "paper_vs_ours.parquet")["agreement"]) == {"not run"}
