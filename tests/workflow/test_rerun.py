"""What runs again after a change: exactly what depends on it, and nothing after no change."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from project import Project, Settings, jobs, small_study

LIBRARY = "workflow/safetyheads"
OWN = "undifferentiated"  # the ablation of all plans but `none`

MEASURED = ["rates", "agreement", "effects", "effects_by_category", "concentration", "stability", "noise"]
VERDICTS = ["verdicts/*", *MEASURED, "report/index"]
COMPLETIONS = ["completions/*", *VERDICTS]
SCORES = ["ships/*", "sahara/*"]
CHECKS = ["checks/*", "report/index"]


MEASURING = {"rates": 1, "agreement": 1, "effects": 1, "concentration": 1, "noise": 1}
"""The jobs that make these."""


def of_plan(plan: str) -> list[str]:
    """A plan's completions and all that follows from them."""
    return [f"completions/*/{plan}/*", f"verdicts/*/{plan}/*", *MEASURED, "report/index"]


def reconfigure(change: Callable[[Settings], object]) -> Callable[[Project], None]:
    """A change of the configuration."""

    def apply(project: Project) -> None:
        settings = small_study()
        change(settings)
        project.configure(settings)

    return apply


def rewrite(module: str, old: str, new: str) -> Callable[[Project], None]:
    """A change of a module of the library."""
    return lambda project: project.edit(f"{LIBRARY}/{module}", old, new)


def other_dataset(project: Project) -> None:
    settings = small_study()
    settings["datasets"]["other"] = {"path": "other.csv", "query": "input"}
    settings["studies"]["main"]["datasets"].append("other")
    project.write_queries("other.csv", 2, first=5)
    project.configure(settings)


def other_weights(project: Project) -> None:
    path = project.folder / "tiny_a" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def files_beside_a_model(project: Project) -> None:
    folder = project.folder / "tiny_a"
    (folder / "README.md").write_text("A model card.", encoding="utf-8")
    (folder / ".git").mkdir()


def comments_everywhere(project: Project) -> None:
    for path in (project.folder / "workflow").rglob("*.py"):
        path.write_text("# A remark.\n" + path.read_text(encoding="utf-8") + "\n\n# Another.\n", encoding="utf-8")


def docstrings_everywhere(project: Project) -> None:
    for path in (project.folder / "workflow").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith('"""')
        path.write_text('"""In other words. ' + text[3:], encoding="utf-8")


def touches_everywhere(project: Project) -> None:
    for path in project.folder.rglob("*"):
        if "results" not in path.parts and ".snakemake" not in path.parts:
            os.utime(path)


def errors_reworded(project: Project) -> None:
    project.edit(f"{LIBRARY}/attribution/greedy.py", "Lower `steps`.", "Choose fewer.")
    project.edit(f"{LIBRARY}/engine/completions.py", "Lower `max_new_tokens`, or shorten", "Shorten")
    project.edit(f"{LIBRARY}/models/tokenizer.py", "cannot be loaded", "is broken")
    project.edit(f"{LIBRARY}/prompts.py", "has no tokens at all", "is empty")
    project.edit(f"{LIBRARY}/statistics/pairs.py", "raise SafetyHeadsError(", "raise SafetyHeadsError('Look here: ' ")


def reversed_keys(value: Any) -> Any:
    return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


def merge_in_other_words(project: Project) -> None:
    project.edit("workflow/scripts/completions_merged.py", "put_together([", "put_together(shards=[")
    project.edit("rules/completions.smk", "Put together", "Join")


def nothing_that_counts(project: Project) -> None:
    """Everything at once that changes no number: words, layout, time stamps, order, what nobody uses."""
    settings = small_study()
    settings["models"]["nowhere"] = {"path": "does/not/exist"}
    settings["datasets"]["nothing"] = {"path": "does/not/exist.csv", "query": "input"}
    settings["head_sets"]["unused"] = ["L00H00"]
    project.configure(reversed_keys(settings))
    errors_reworded(project)
    docstrings_everywhere(project)
    comments_everywhere(project)
    files_beside_a_model(project)
    project.edit(f"{LIBRARY}/artifacts/files.py", 'compression="zstd"', 'compression="zstd", compression_level=9')
    merge_in_other_words(project)
    touches_everywhere(project)


CHANGES: dict[str, tuple[Callable[[Project], object], list[str]]] = {
    "a keyword list of the library": (rewrite("judges/keywords/paper.txt", "I apologize", "I apologise"), VERDICTS),
    "one more data set": (other_dataset, ["datasets/other", "*/tiny/other/*", *MEASURED, "report/index"]),
    "the number of shards": (
        reconfigure(lambda settings: settings.update(compute={"shards": 3})),
        COMPLETIONS,
    ),
    "the number format of a model": (
        reconfigure(lambda settings: settings["models"]["tiny"].update(dtype="bfloat16")),
        [*CHECKS, *SCORES, *COMPLETIONS],
    ),
    "the queries of a data set": (
        lambda project: project.write_queries("neutral.csv", 4),
        ["datasets/*", "prompts/*", *SCORES, *COMPLETIONS],
    ),
    "the weights of a model": (other_weights, ["models/*", *CHECKS, "prompts/*", *SCORES, *COMPLETIONS]),
    "the arithmetic of Ships": (
        rewrite("attribution/ships.py", "divergence(logits, of_heads)", "2 * divergence(logits, of_heads)"),
        ["ships/*", *of_plan("ships-1")],
    ),
    "what an exception carries": (
        rewrite(
            "engine/layer_shortcuts.py", "raise _Reached(module, states)", "raise _Reached(module, (2 * states[0],))"
        ),
        [*SCORES, *COMPLETIONS],
    ),
    "what a check of models lets pass": (rewrite("engine/model_checks.py", "FAR = 4.0", "FAR = 5.0"), []),
    "the arithmetic of ablation": (
        rewrite("engine/ablation.py", "query * ablation.epsilon", "query * 2 * ablation.epsilon"),
        [*CHECKS, *SCORES, *COMPLETIONS],
    ),
    "nothing that counts": (nothing_that_counts, []),
}
"""What the configuration changes is in tests/unit/test_reruns.py, what code changes in test_fingerprint.py."""


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_what_depends_on_a_change_runs_again(project: Project, change: str) -> None:
    apply, patterns = CHANGES[change]
    apply(project)
    outputs = project.outputs()
    assert len(outputs) > 15
    unmatched = [pattern for pattern in patterns if not any(fnmatch(output, pattern) for output in outputs)]
    assert not unmatched, "the study has no such output"
    expected = {output for output in outputs if any(fnmatch(output, pattern) for pattern in patterns)}
    assert {output for output, pending in outputs.items() if pending} == expected


def test_a_second_run_runs_nothing(project: Project) -> None:
    assert project.make() == {}


def test_a_fresh_checkout_beside_the_same_results_runs_nothing(base: Project, tmp_path: Path) -> None:
    fresh = Project.create(tmp_path / "fresh", checkout=base.folder)
    for name in ("results", ".snakemake"):
        shutil.copytree(base.folder / name, fresh.folder / name)
    assert fresh.make() == {}


def test_a_rerun_touches_nothing_else_and_the_next_run_nothing_at_all(project: Project) -> None:
    before = project.artefacts()
    project.edit(f"{LIBRARY}/judges/keywords/paper.txt", "I apologize", "I apologise")
    assert project.make() == {"verdicts": 8, **MEASURING, "report": 1, "all": 1}
    after = project.artefacts()
    changed = {name for name in before if before[name] != after[name]}
    assert changed - set(MEASURED) == {name for name in before if name.startswith("verdicts/")}
    assert project.make() == {}


def test_a_model_can_be_checked_again_without_its_scores(project: Project) -> None:
    file, before = project.results / "checks" / "tiny" / "float32-auto.json", project.artefacts()
    file.touch()
    assert project.make() == {}
    project.edit(f"{LIBRARY}/engine/model_checks.py", "FAR = 4.0", "FAR = 5.0")
    path = str(file.relative_to(project.folder))
    assert project.make(path, "--forcerun", path) == {"checks": 1}
    assert project.make() == {}
    assert project.artefacts() == before


def test_a_check_that_fails_ends_what_comes_after_it_and_leaves_what_was_there(project: Project) -> None:
    file, before = project.results / "checks" / "tiny" / "tf32-auto.json", project.artefacts()
    settings = small_study()
    settings["studies"]["main"]["plans"].append("random-2")
    settings["models"]["tiny"]["dtype"] = "tf32"  # on a CPU the same, but planned as another
    project.configure(settings)
    project.edit(f"{LIBRARY}/engine/model_checks.py", "most=2e-2", "most=-1.0")
    for _ in range(2):
        ended = project.run("--keep-going")
        assert ended.status == 1
        assert 'tiny: The check "sdpa equals eager attention" does not hold in float32 on cpu' in ended.output
        assert "Set `models: {tiny: {attention: eager}}`" in ended.output
        assert project.artefacts() == before
        assert not file.exists()
    settings["models"]["tiny"]["dtype"] = "float32"
    project.configure(settings)
    assert project.make() == {"completions": 1, "verdicts": 2, **MEASURING, "report": 1, "all": 1}


def test_one_more_plan_makes_its_completions_only(project: Project) -> None:
    before = project.artefacts()
    settings = small_study()
    settings["studies"]["main"]["plans"].append("random-2")
    project.configure(settings)
    assert project.make() == {"completions": 1, "verdicts": 2, **MEASURING, "report": 1, "all": 1}
    after = project.artefacts()
    assert all(after[name] == before[name] for name in before if name not in MEASURED)
    assert {name.split("/")[-2] for name in after if name not in before and name.startswith("completions/")} == {
        "random-2"
    }
    assert project.make() == {}


def test_the_summary_that_these_tests_read_agrees_with_a_dry_run(project: Project) -> None:
    settings = small_study()
    settings["attribution"]["steps"] = 3
    project.configure(settings)
    planned = jobs(project.run("--dry-run").output)
    assert planned == {"sahara": 1, "completions": 1, "verdicts": 2, **MEASURING, "report": 1, "all": 1}
    made = Counter(
        output.split("/")[0] for output in project.pending() if output not in ("effects_by_category", "stability")
    )
    assert made + Counter(all=1) == Counter(planned)
