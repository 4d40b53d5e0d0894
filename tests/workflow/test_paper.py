"""config/paper.yaml: the ASR experiments of the paper are planned on a machine with neither network nor GPU."""

import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from project import REPOSITORY, Project, jobs

from safetyheads.config.load import load_config


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


def test_it_has_the_asr_experiments_of_the_paper() -> None:
    settings = load_config(yaml.safe_load((REPOSITORY / "config" / "paper.yaml").read_text()), Path())
    main = settings.studies["main"]
    assert main.models == ["llama-2-7b-chat", "vicuna-7b-v1.5"]
    assert main.datasets == ["advbench", "jailbreakbench", "malicious_instruct"]
    assert main.ablations == ["undifferentiated", "scaling"]
    assert main.decodings == ["greedy", "top5"]
    assert set(main.plans) >= {"none", *(f"{kind}-{n}" for kind, n in product(("ships", "sahara"), range(1, 6)))}
    templates = {name for study in settings.studies.values() for name in study.templates}
    assert templates == {"direct", "simple", "chat", "chat_system", "urial", "sure"}
    assert any("single" in study.plans for study in settings.studies.values())
    assert all(settings.decoding(name).max_new_tokens == 128 for name in main.decodings)
