"""The library's rooms: each uses only the rooms that the table allows, and what is light loads no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetyheads.jobs.fingerprint import LIBRARY

VOCABULARY = {
    *(
        "errors",
        "heads",
        "chosen_heads",
        "plans",
        "prompts",
        "templates",
        "datasets",
        "data_files",
        "judging",
        "methods",
        "experiments",
        "tasks",
    ),
}
MAY_USE: dict[str, set[str]] = {
    "artifacts": set(),
    "engine": {"artifacts"},
    "models": {"engine", "artifacts"},
    "attribution": {"engine", "artifacts"},
    "judges": {"artifacts", "engine", "models"},  # those that compute with a model; see the test of what is light
    "statistics": set(),
    "config": {"demo"},
    "costs": {"config"},
    "demo": {"engine"},
    "report": {"judges", "statistics", "demo"},
    "jobs": {
        "artifacts",
        "engine",
        "models",
        "attribution",
        "judges",
        "statistics",
        "config",
        "costs",
        "demo",
        "report",
    },
}
"""Room -> the rooms that it may use besides itself and the vocabulary."""

DOOR = "__version__"
"""All that a room may take from the public door."""


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Room and name of everything that a file imports from the library, also within functions and for types."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, inner = name.partition(".")
            if package == "safetyheads":
                yield inner.partition(".")[0], name


def files(room: str) -> list[Path]:
    return sorted((LIBRARY / room).rglob("*.py"))


def test_the_library_has_these_rooms_and_the_vocabulary_beside_the_door() -> None:
    assert {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(MAY_USE)
    assert {path.stem for path in LIBRARY.glob("*.py")} == VOCABULARY | {"__init__"}


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_uses_what_it_may(room: str) -> None:
    allowed = {room, DOOR} | VOCABULARY | MAY_USE[room]
    wrong = [f"{path.name}: {name}" for path in files(room) for used, name in imports(path) if used not in allowed]
    assert wrong == []


def test_the_vocabulary_uses_itself_alone() -> None:
    wrong = [
        (path.name, name)
        for path in LIBRARY.glob("*.py")
        if path.stem in VOCABULARY
        for used, name in imports(path)
        if used not in VOCABULARY
    ]
    assert wrong == []


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_says_what_it_holds_and_what_it_uses(room: str) -> None:
    words = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text(encoding="utf-8")))
    assert words is not None
    unsaid = [used for used in MAY_USE[room] if f"`{used}`" not in words]
    assert unsaid == [] or "every room" in words
    assert "vocabulary" in words or "every room" in words


def test_no_two_rooms_use_each_other() -> None:
    assert [(room, other) for room in MAY_USE for other in MAY_USE[room] if room in MAY_USE[other]] == []


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in LIBRARY.rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > 300} == {}


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (["safetyheads"], ["torch", "transformers", "pandas", "numpy"]),
        (["safetyheads.config.load", "safetyheads.costs.job_costs"], ["torch", "transformers", "pandas", "pyarrow"]),
        (
            [f"safetyheads.jobs.{name}" for name in ("cells", "resources", "planning", "fingerprint", "slurm_checks")],
            ["torch", "transformers", "pandas", "pyarrow"],
        ),
        (
            [
                "safetyheads.statistics.rates",
                "safetyheads.judges.declared",
                "safetyheads.judges.verdicts",
                "safetyheads.report",
            ],
            ["torch", "transformers"],
        ),
        (["safetyheads.engine.plain_rows"], ["torch", "transformers"]),
        (
            ["safetyheads.jobs.run", "safetyheads.jobs.model_files", "safetyheads.jobs.records"],
            ["torch", "transformers"],
        ),
    ],
)
def test_what_is_light_stays_light(modules: list[str], heavy: list[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*sorted({heavy!r} & sys.modules.keys()))".replace(
        f"{heavy!r} &", f"set({heavy!r}) &"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
