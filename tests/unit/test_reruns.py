"""What runs again after a change of the configuration: exactly the rules whose params say something else, as the rule
files have them. That Snakemake runs again what is behind them, and what a change of files or code does, is shown in
tests/workflow/test_rerun.py and test_fingerprint.py.
"""

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from safetyheads.config.load import Config, load_config
from safetyheads.jobs.cells import Cell, Cells
from safetyheads.jobs.judge_cells import JudgeCells
from safetyheads.jobs.resources import Requests

ROOT = Path(__file__).parents[2]
Settings = dict[str, Any]
Params = dict[tuple[str, ...], Any]
"""What a rule's params say, by the rule and the keys of a path."""

STUDY: Settings = {
    "models": {"tiny": {"path": "tiny_a", "dtype": "float32"}, "taught": {"demo": True}},
    "datasets": {"neutral": {"path": "neutral.csv", "query": "input"}},
    "templates": {"plainly": {"text": "{query}"}},
    "ablations": {"harder": {"kind": "scaling", "epsilon": 1e-6}},
    "decodings": {"short": {"top_k": 5, "samples": 2, "max_new_tokens": 6}},
    "judges": {
        "own": {"kind": "keywords", "list": ["No way"]},
        "gen": {"kind": "generative", "path": "gen", "template": "judge.txt", "answers": {"yes": 1, "no": 0}},
    },
    "head_sets": {"mine": ["L00H01"], "unused": ["L00H00"]},
    "attribution": {"steps": 2},
    "compute": {"device": "cpu"},
    "studies": {
        "main": {
            "models": ["tiny", "taught"],
            "datasets": ["neutral"],
            "templates": ["plainly"],
            "ablations": ["harder"],
            "plans": ["none", "ships-1", "sahara-2", "random-2", "mine", "matched-ships-1"],
            "decodings": ["short"],
            "judges": ["own", "gen"],
        }
    },
}
TAKES = {
    "datasets": ("dataset",),
    "models": ("model",),
    "models_train": ("model",),
    "checks": ("model", "dtype", "attention"),
    "prompts": ("model", "dataset", "template"),
    "ships": ("model", "dataset", "template", "ablation"),
    "sahara": ("model", "dataset", "template", "ablation"),
    "completions": ("model", "dataset", "template", "ablation", "plan", "decoding"),
    "judges": ("judge",),
    "judged": ("judge", "model", "dataset", "template"),
    "labelled": ("judge",),
    "verdicts": Cell._fields,
    "calibration": (),
    "agreement": (),
    "rates": (),
    "effects": (),
    "maps": (),
    "concentration": (),
    "noise": (),
    "report": (),
    "annotation": (),
}
"""Rule -> the keys of its path."""


def rule_texts() -> dict[str, str]:
    """Rule -> the lines of its params."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))
    rules = re.split(r"^(?: *)rule (\w+):\n", text, flags=re.MULTILINE)
    found = dict(zip(rules[1::2], rules[2::2]))
    return {rule: found[rule].split("params:")[1].split("message:")[0] for rule in TAKES}


PARAMS = rule_texts()
COMPUTING = {"checks", "ships", "sahara", "completions"}
"""The rules that open a model to compute with it."""
MEASURED = {"rates", "effects", "maps", "concentration", "noise", "annotation"}
"""The rules that take the verdicts of all cells."""
LABELLED = {"rates", "effects", "calibration"}
"""The rules that take what people said of answers."""
ENTRY = re.compile(r"(\w+)=((?:[^,()\[\]{}]|\([^)]*\)|\[(?:[^\[\]]|\[[^\]]*\])*\]|\{[^}]*\})+),", re.DOTALL)


def params(rule: str, keyed: dict[str, str], config: Config) -> dict[str, Any]:
    """What the params of a rule say for a path with these keys; without the fingerprint of the code."""
    requests, cells = Requests(config), Cells(config)
    known: dict[str, Callable[[], Any]] = {
        'asked(settings.verdicts_by, "judge")': lambda: config.verdicts_by(keyed["judge"]),
        'asked(settings.labels_by, "judge")': lambda: config.labels_by(keyed["judge"]),
        "judge_source": lambda: config.judge_source(keyed["judge"]),
        "judged_by": lambda: config.judged_by(keyed["judge"]),
        "judge_settings": lambda: config.judged_by(keyed["judge"]) or config.verdicts_by(keyed["judge"]),
        "judge_dtype": lambda: requests.judge_dtype(keyed["judge"], on_gpu=False),
        "judge_content": lambda: "",
        'asked(judge_cells.verdict_content, "judge")': lambda: "",
        'asked(judge_cells.labels_content, "judge")': lambda: "",
        "chat_template": lambda: config.chat_template(keyed["model"]) or "",
        "heads_of_plan": lambda: cells.plan_settings(keyed["plan"], keyed["ablation"]),
        "dtype": lambda: requests.dtype(keyed["model"], on_gpu=False),
        "dataset_content": lambda: "",  # the files do not matter here: see tests/workflow/test_content_study.py
        "model_content": lambda: "",
        "cells.choices()": cells.choices,
        "cells.methods()": cells.methods,
        "settings.attribution.openings": lambda: config.attribution.openings,
        **{
            f'settings.attribution.of("{method}")': partial(config.attribution.of, method)
            for method in ("ships", "sahara")
        },
        "[[*of, *less] for of, less in cells.contrasts().items()]": lambda: [
            [*of, *less] for of, less in cells.contrasts().items()
        ],
        "thinking": lambda: config.thinking(keyed["model"]),
        "cells.drop_leaks()": cells.drop_leaks,
        "settings.benign()": config.benign,
        "settings.compute.mixed": lambda: config.compute.mixed,
        "settings.report.plain()": config.report.plain,
        "settings.annotation.plain()": config.annotation.plain,
        "{name: study.plain() for name, study in settings.studies.items()}": lambda: {
            name: study.plain() for name, study in config.studies.items()
        },
    }
    found = {}
    for name, value in ENTRY.findall(PARAMS[rule]):
        asked = re.fullmatch(r"given\((.*)\)", value.strip(), re.DOTALL)
        if asked:
            section, *keys = re.findall(r'"(\w+)"', asked[1])
            found[name] = config.given(f"{section}s", keyed[section], keys)
        elif name != "code":
            found[name] = known[value.strip()]()
    return found


def planned(settings: Settings) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Everything that the study makes: rule and keys, and what the params say and the inputs are called."""
    config = load_config(settings, Path("/nowhere"))
    cells = Cells(config)
    keyed = {
        rule: {tuple(getattr(cell, key) for key in keys) for cell in cells.all}
        for rule, keys in TAKES.items()
        if rule != "checks"
    }
    keyed["checks"] = {
        (name, Requests(config).dtype(name, on_gpu=False), config.model(name).attention) for (name,) in keyed["models"]
    }
    for method in ("ships", "sahara"):
        keyed[method] = {cell[:4] for cell in cells.scored(method)}
    for rule in ("judges", "judged"):
        keyed[rule] = {values for values in keyed[rule] if config.judge(values[0]).needs_model}
    keyed["labelled"] = {(name,) for (name,) in keyed["labelled"] if config.judge(name).labels}
    keyed["models_train"] = {(name,) for (name,) in keyed["models"] if config.model(name).demo}
    for rule, keys in TAKES.items():
        for values in keyed[rule]:
            named = dict(zip(keys, values))
            inputs = sorted(map(str, cells.all)) if rule in MEASURED else []
            inputs += cells.labelled() if rule in LABELLED else []
            inputs += JudgeCells(cells).judged_inputs(*values) if rule == "judged" else []
            yield (rule, *values), (params(rule, named, config), inputs)


def changed(change: Callable[[Settings], object]) -> set[str]:
    """The rules that make something new, or something in another way, after a change."""
    settings = deepcopy(STUDY)
    change(settings)
    before, after = dict(planned(STUDY)), dict(planned(settings))
    return {key[0] for key in after if before.get(key) != after[key]} | {"gone" for key in before if key not in after}


@pytest.fixture(autouse=True)
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's files do not matter here."""
    monkeypatch.setattr("safetyheads.config.load.check_studies", lambda *_: [])


def section(name: str, entry: str, **values: Any) -> Callable[[Settings], object]:
    return lambda settings: settings[name][entry].update(values)


CHANGES: dict[str, tuple[Callable[[Settings], object], set[str]]] = {
    "nothing": (lambda settings: None, set()),
    "max_new_tokens": (section("decodings", "short", max_new_tokens=7), {"completions"}),
    "a keyword list": (section("judges", "own", list=["No", "Never"]), {"verdicts"}),
    "labels of a judge": (section("judges", "own", labels="labels.csv"), {"labelled", *LABELLED}),
    "labels of a judge with a model": (section("judges", "gen", labels="labels.csv"), {"labelled", *LABELLED}),
    "what a judge says": (section("judges", "gen", answers={"yes": 0, "no": 1}), {"judged"}),
    "what a judge finds": (section("judges", "gen", detects="refusal"), {"judged", "verdicts"}),
    "the template of a judge": (section("judges", "gen", template="chat"), {"judges", "judged"}),
    "the number format of a judge": (section("judges", "gen", dtype="bfloat16"), {"judged"}),
    "GPUs of a judge": (section("judges", "gen", gpus=2, max_memory={"cpu": "1GB"}), set()),
    "a head set": (lambda settings: settings["head_sets"]["mine"].append("L02H03"), {"completions"}),
    "draws of random heads": (lambda settings: settings.update(random={"draws": 9}), {"completions"}),
    "draws of matched controls": (lambda settings: settings.update(random={"matched": 9}), {"completions"}),
    "epsilon of the ablation": (section("ablations", "harder", epsilon=1e-4), {"ships", "sahara", "completions"}),
    "a template": (section("templates", "plainly", text="Q: {query}"), {"prompts"}),
    "the column of the queries": (section("datasets", "neutral", query="text"), {"datasets"}),
    "a pilot": (section("datasets", "neutral", limit=2), {"datasets"}),
    "a data set that should be answered": (
        section("datasets", "neutral", benign=True),
        {*MEASURED, "judged", "report", "gone"},
    ),
    "how refusals begin": (lambda settings: settings["attribution"].update(openings=["Never"]), {"ships", "verdicts"}),
    "attribution steps": (lambda settings: settings["attribution"].update(steps=3), {"sahara"}),
    "the attention of a model": (section("models", "tiny", attention="eager"), {*COMPUTING, "gone"}),
    "the number format of a model": (section("models", "tiny", dtype="float16"), {*COMPUTING, "gone"}),
    "auto that means the same": (section("models", "tiny", dtype="auto"), set()),
    "the chat template of a model": (section("models", "tiny", chat_template="{{ x }}"), {"prompts"}),
    "the seed of the demo": (section("models", "taught", demo={"seed": 1}), {"models_train", "models"}),
    "how a model thinks": (
        section("models", "tiny", thinking={"open": "<think>", "close": "</think>"}),
        {"verdicts"},
    ),
    "leaks of a study": (lambda settings: settings["studies"]["main"].update(leaks="drop"), {"effects", "report"}),
    "the report's title": (lambda settings: settings.update(report={"title": "Mine"}), {"report"}),
    "the size of the sample that people label": (
        lambda settings: settings.update(annotation={"size": 20}),
        {"annotation"},
    ),
    "mixed": (lambda settings: settings["compute"].update(mixed=True), {"rates"}),
    "one more plan": (
        lambda settings: settings["studies"]["main"]["plans"].append("ships-3"),
        {"completions", "judged", "verdicts", *MEASURED, "report"},
    ),
    "one plan less": (
        lambda settings: settings["studies"]["main"]["plans"].remove("random-2"),
        {*MEASURED, "judged", "report", "gone"},
    ),
    "the name of a study": (
        lambda settings: settings.update(studies={"other": settings["studies"]["main"]}),
        {"report"},
    ),
    "where a model lies, and how much memory it gets": (
        section("models", "tiny", path="elsewhere", gpus=2, max_memory={"cpu": "1GB"}),
        set(),
    ),
    "where a data set lies": (section("datasets", "neutral", path="elsewhere.csv"), set()),
    "batches, threads, device, speed": (
        lambda settings: settings["compute"].update(token_budget=99, threads=2, speed={"start": 9.0}),
        set(),
    ),
    "what no study uses": (
        lambda settings: (
            settings["models"].update(nowhere={"path": "nowhere"}),
            settings["head_sets"]["unused"].append("L01H01"),
            settings.update(results="elsewhere"),
        ),
        set(),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_the_rules_that_depend_on_a_change_run_again(change: str) -> None:
    apply, expected = CHANGES[change]
    assert changed(apply) == expected


def test_every_rule_s_params_are_read_from_its_file() -> None:
    for rule, keys in TAKES.items():
        entries = dict(ENTRY.findall(PARAMS[rule]))
        assert f'code("{rule}")' in entries["code"]
        assert set(keys) >= {part for value in entries.values() for part in re.findall(r'given\(\s*"(\w+)"', value)}
