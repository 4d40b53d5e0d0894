"""Configurations in layers, with the real Snakemake: what a run and its jobs get, and what the terminal tells."""

from pathlib import Path

import pytest
import yaml
from project import Project

PROMPTS = "results/prompts/tiny/neutral/plainly.parquet"


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """The small study, not run."""
    return Project.create(tmp_path / "project")


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ('templates={plainly: {text: "Say $HOME \\n{query}"}}', "Say $HOME \n"),
        ("templates={plainly: {text: 'Say $HOME {query}'}}", "Say $HOME "),
    ],
)
def test_jobs_get_what_the_command_line_says_whatever_a_shell_would_make_of_it(
    fresh: Project, word: str, text: str
) -> None:
    options = ["--config", word, "compute={token_budget: 512}", "models={tiny: {max_memory: {0: 20GiB}}}"]
    first = fresh.run(PROMPTS, *options)
    assert first.status == 0, first.output[-3000:]
    assert "--config sets compute.token_budget: 512\n" in first.output
    assert first.output.count("--config sets templates.plainly.text: ") == 1, "told once, not by every job"
    assert all(made.startswith(text) for made in fresh.read("prompts/tiny/neutral/plainly")["text"])
    assert fresh.make(PROMPTS, *options) == {}
    assert fresh.make("-n", PROMPTS) == {"prompts": 1}, "without --config, the text is the file's again"


def test_a_wrong_value_of_the_command_line_is_told_as_one_of_a_file(fresh: Project) -> None:
    result = fresh.run("-n", "--config", "compute={token_budget: 1e4}", "results=$SCRATCH/x")
    assert result.status != 0
    assert "compute.token_budget: found '1e4' (text); allowed: a whole number. Write 10000" in result.output
    assert "results: found '$SCRATCH/x'" in result.output
    assert "Traceback" not in result.output


def test_a_second_file_changes_what_it_names_and_no_more(fresh: Project) -> None:
    top = {"templates": {"other": {"text": "Q: {{query}}"}}, "studies": {"main": {"templates": ["other"]}}}
    (fresh.folder / "top.yaml").write_text(yaml.safe_dump(top))
    result = fresh.run("-n", "--configfile", "study.yaml", "top.yaml", configfile=None)
    assert result.status == 0, result.output[-3000:]
    assert "top.yaml sets studies.main.templates: ['other'] (was: ['plainly'])\n" in result.output
    assert result.output.count("Is this meant? templates.other.text: found {{query}}") == 1
    made = fresh.run(
        "-n", "results/prompts/tiny/neutral/other.parquet", "--configfile", "study.yaml", "top.yaml", configfile=None
    )
    assert made.status == 0, made.output[-3000:]
    twice = fresh.run("-n", "--configfile", "study.yaml", "--configfile", "top.yaml", configfile=None)
    assert twice.status != 0
    assert "--configfile: found 2 times" in twice.output


def test_a_folder_with_braces_is_refused_before_any_job(tmp_path: Path) -> None:
    result = Project.create(tmp_path / "with{braces}").run("-n")
    assert result.status != 0
    assert "allowed: a path without '{' and '}'" in result.output
    assert "Traceback" not in result.output
