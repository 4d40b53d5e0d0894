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

VERDICTS = ["verdicts/*", "rates", "report/index"]
COMPLETIONS = ["completions/*", *VERDICTS]
SCORES = ["ships/*", "sahara/*"]


def of_plan(plan: str) -> list[str]:
    """A plan's completions and all that follows from them."""
    return [f"completions/*/{plan}/*", f"verdicts/*/{plan}/*", "rates", "report/index"]


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
    project.edit(f"{LIBRARY}/attribution/sahara.py", "Lower `steps`.", "Choose fewer.")
    project.edit(f"{LIBRARY}/engine/completions.py", "Lower `max_new_tokens`, or shorten", "Shorten")
    project.edit(f"{LIBRARY}/models/load.py", "cannot be loaded", "is broken")
    project.edit(f"{LIBRARY}/prompts.py", "has no tokens at all", "is empty")
    project.edit(f"{LIBRARY}/statistics/rates.py", "raise SafetyHeadsError(", "raise SafetyHeadsError('Look here: ' ")


def unused_settings(project: Project) -> None:
    settings = small_study()
    settings["models"]["nowhere"] = {"path": "does/not/exist"}
    settings["datasets"]["nothing"] = {"path": "does/not/exist.csv", "query": "input"}
    settings["random"] = {"draws": 9}
    settings["head_sets"]["unused"] = ["L00H00"]
    project.configure(settings)


def reversed_settings(project: Project) -> None:
    def turned(value: Any) -> Any:
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    project.configure(turned(small_study()))


CHANGES: dict[str, tuple[Callable[[Project], object], list[str]]] = {
    "a keyword list of the library": (
        rewrite("judges/keywords.py", '"I apologize"', '"I apologise"'),
        VERDICTS,
    ),
    "a keyword list of the configuration": (
        reconfigure(lambda settings: settings["judges"]["own"]["list"].append("Never")),
        ["verdicts/*/own", "rates", "report/index"],
    ),
    "max_new_tokens": (
        reconfigure(lambda settings: settings["decodings"]["short"].update(max_new_tokens=7)),
        COMPLETIONS,
    ),
    "one more data set": (
        other_dataset,
        ["datasets/other", "*/tiny/other/*", "rates", "report/index"],
    ),
    "one more plan": (
        reconfigure(lambda settings: settings["studies"]["main"]["plans"].append("random-2")),
        of_plan("random-2"),
    ),
    "one more plan of scores that are there": (
        reconfigure(lambda settings: settings["studies"]["main"]["plans"].append("ships-3")),
        of_plan("ships-3"),
    ),
    "one plan less": (
        reconfigure(lambda settings: settings["studies"]["main"]["plans"].remove("mine")),
        ["rates", "report/index"],
    ),
    "attribution steps": (
        reconfigure(lambda settings: settings["attribution"].update(steps=3)),
        ["sahara/*", *of_plan("sahara-2")],
    ),
    "the number of shards": (
        reconfigure(lambda settings: settings.update(compute={"shards": 3})),
        COMPLETIONS,
    ),
    "a head set": (
        reconfigure(lambda settings: settings["head_sets"]["mine"].append("L03H03")),
        of_plan("mine"),
    ),
    "epsilon of the ablation": (
        reconfigure(
            lambda settings: settings.update(ablations={OWN: {"kind": OWN, "epsilon": 1e-4}}),
        ),
        [*SCORES, f"completions/*/{OWN}/*", f"verdicts/*/{OWN}/*", "rates", "report/index"],
    ),
    "a template": (
        reconfigure(lambda settings: settings["templates"]["plainly"].update(text="Q: {query}")),
        ["prompts/*", *SCORES, *COMPLETIONS],
    ),
    "the queries of a data set": (
        lambda project: project.write_queries("neutral.csv", 4),
        ["datasets/*", "prompts/*", *SCORES, *COMPLETIONS],
    ),
    "the weights of a model": (other_weights, ["models/*", "prompts/*", *SCORES, *COMPLETIONS]),
    "the attention of a model": (
        reconfigure(lambda settings: settings["models"]["tiny"].update(attention="eager")),
        [*SCORES, *COMPLETIONS],
    ),
    "the report's title": (reconfigure(lambda settings: settings.update(report={"title": "Mine"})), ["report/index"]),
    "the name of a study": (
        reconfigure(lambda settings: settings["studies"].update(renamed=settings["studies"].pop("main"))),
        ["report/index"],
    ),
    "the arithmetic of Ships": (
        rewrite("attribution/ships.py", ".clamp_min(0.0)", ".abs()"),
        ["ships/*", *of_plan("ships-1")],
    ),
    "the arithmetic of Sahara": (
        rewrite("attribution/sahara.py", "np.degrees(", "2 * np.degrees("),
        ["sahara/*", *of_plan("sahara-2")],
    ),
    "the arithmetic of generation": (rewrite("engine/generation.py", "2.0**-54", "2.0**-53"), COMPLETIONS),
    "the arithmetic of the rates": (
        rewrite("statistics/rates.py", "CONFIDENCE = 0.95", "CONFIDENCE = 0.9"),
        ["rates", "report/index"],
    ),
    "nothing": (lambda project: None, []),
    "files that a model does not use": (files_beside_a_model, []),
    "time stamps": (touches_everywhere, []),
    "comments": (comments_everywhere, []),
    "docstrings": (docstrings_everywhere, []),
    "the wording of errors": (errors_reworded, []),
    "how artefacts are written": (
        rewrite("artifacts/files.py", 'compression="zstd"', 'compression="zstd", compression_level=9'),
        [],
    ),
    "what no job uses": (unused_settings, []),
    "the order of the configuration's keys": (reversed_settings, []),
}


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
    project.edit(f"{LIBRARY}/judges/keywords.py", '"I apologize"', '"I apologise"')
    assert project.make() == {"verdicts": 8, "rates": 1, "report": 1, "all": 1}
    after = project.artefacts()
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"rates"} == {name for name in before if name.startswith("verdicts/")}
    assert project.make() == {}


def test_one_more_plan_makes_its_completions_only(project: Project) -> None:
    before = project.artefacts()
    settings = small_study()
    settings["studies"]["main"]["plans"].append("random-2")
    project.configure(settings)
    assert project.make() == {"completions": 1, "verdicts": 2, "rates": 1, "report": 1, "all": 1}
    after = project.artefacts()
    assert all(after[name] == before[name] for name in before if name != "rates")
    assert {name.split("/")[-2] for name in after if name not in before and name.startswith("completions/")} == {
        "random-2"
    }
    assert project.make() == {}


def test_the_summary_that_these_tests_read_agrees_with_a_dry_run(project: Project) -> None:
    settings = small_study()
    settings["attribution"]["steps"] = 3
    project.configure(settings)
    planned = jobs(project.run("--dry-run").output)
    assert planned == {"sahara": 1, "completions": 1, "verdicts": 2, "rates": 1, "report": 1, "all": 1}
    assert Counter(output.split("/")[0] for output in project.pending()) + Counter(all=1) == Counter(planned)
