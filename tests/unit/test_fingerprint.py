"""The fingerprint of code: what is computed counts, by whatever way it is imported; what is for people does not."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safetyheads.jobs import fingerprint as module
from safetyheads.jobs.fingerprint import LIBRARY, NOT_COUNTED, counted, fingerprint, meaning

SCRIPTS = LIBRARY.parent / "scripts"

CODE = '''"""A module."""

import logging

log = logging.getLogger(__name__)


class Box:
    """A box."""

    size: int = 3
    """Its size."""


def area(width: float, height: float) -> float:
    """Width times height."""
    if width < 0:
        raise SafetyHeadsError(f"width is {width}")
    if width == 7:
        raise _Reached(width, height)
    log.info("width %s", width)
    return width * height + 1
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""\n', ""),
        ("Width times height.", "The area."),
        ('    """Width times height."""\n', ""),
        ('    """Its size."""\n', '    """How large it is."""\n'),
        ('"""A box."""', '"""A large box."""'),
        ("    return", "    # because\n    return"),
        ("import logging\n", "import logging\n\n\n# a comment\n"),
        ("width * height + 1", "(width * height\n            + 1)"),
        ("width is {width}", "width {width} is negative"),
        ('SafetyHeadsError(f"width is {width}")', "SafetyHeadsError(str(2 * width), height)"),
        ('log.info("width %s", width)', 'log.warning("width is %s", width)'),
        ('    log.info("width %s", width)\n', ""),
    ],
)
def test_words_and_layout_do_not_count(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert meaning(CODE.replace(old, new)) == meaning(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("* height", "+ height"),
        ("+ 1", "+ 2"),
        ("+ 1", "+ 1.0"),
        ("width < 0", "width <= 0"),
        ("width < 0", "height < 0"),
        ("size: int = 3", "size: int = 4"),
        ("def area(width", "def area(breadth"),
        ("return width", "return -width"),
        ("class Box", "class Crate"),
        ("        raise Safety", "        return Safety"),
        ("import logging", "import logging, math"),
        ('        raise SafetyHeadsError(f"width is {width}")', "        pass"),
        ("raise SafetyHeadsError(", "raise ValueError("),
        ("_Reached(width, height)", "_Reached(2 * width, height)"),
        ("logging.getLogger(__name__)", 'logging.getLogger("x")'),
    ],
)
def test_what_is_computed_counts(old: str, new: str) -> None:
    assert CODE.count(old) == 1
    assert meaning(CODE.replace(old, new)) != meaning(CODE)


def test_text_that_is_a_value_counts() -> None:
    assert meaning('NAME = "a"') != meaning('NAME = "b"')
    assert meaning('print("a")') != meaning('print("b")')
    assert meaning('def f() -> str:\n    return "a"') != meaning('def f() -> str:\n    return "b"')


def test_an_f_string_is_told_alike_however_its_text_is_cut() -> None:
    assert meaning('f"a{x}b" "c"') == meaning('f"a{x}bc"') == meaning('"a" f"{x}" f"bc"')
    assert meaning('f"{x:{w}.2f}"') != meaning('f"{x:{w}.3f}"')
    assert meaning('f"{x!r}"') != meaning('f"{x}"')
    assert meaning('g("a", "b")') != meaning('g("ab")')


def works(python: str) -> bool:
    """Whether it is a Python: those that version managers leave on the path may be empty shells."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


MINORS = range(11, 15)
OTHERS = [found for minor in MINORS if (found := shutil.which(f"python3.{minor}"))]
if root := os.environ.get("PYENV_ROOT"):
    OTHERS += [str(path) for minor in MINORS for path in Path(root).glob(f"versions/*/bin/python3.{minor}")]
PYTHONS = sorted({sys.executable, *filter(works, OTHERS)})


@pytest.mark.parametrize("python", PYTHONS)
def test_every_python_that_is_here_tells_the_same(python: str) -> None:
    code = (
        "import runpy, sys, pathlib; module = runpy.run_path(sys.argv[1]); "
        "print(*(module['fingerprint'](pathlib.Path(script)) for script in sys.argv[2:]))"
    )
    scripts = sorted(map(str, SCRIPTS.glob("*.py")))
    done = subprocess.run(
        [python, "-c", code, module.__file__, *scripts], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [fingerprint(Path(script)) for script in scripts]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the library, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(LIBRARY, tmp_path / "safetyheads", ignore=ignored))


def rules(library: Path) -> dict[str, str]:
    """The fingerprint of each script."""
    return {script.stem: fingerprint(script, library) for script in sorted(SCRIPTS.glob("*.py"))}


BY_MARGIN = {"gradient", "knockouts", "mask"}
SWEEPING = {"ships", "sahara", "sahara_centred", "displacement", "refusal_direction", *BY_MARGIN}
"""The methods, which all pass over prompts with heads ablated; that of `attention` only looks at the plain model."""
SCORES_AND_COMPLETIONS = {*SWEEPING, "completions"}
COMPUTING = {*SCORES_AND_COMPLETIONS, "attention", "checks", "utility"}
JUDGED = {"judged", "labelled"}
"""The scripts that open the model of a judge; that of the rule `judges` describes it."""
FOUND_BY = {
    **{
        f"engine/{name}": {"completions"}
        for name in ("generation", "generation_checks", "kv_cache", "likelihood", "prefill", "shared_rows")
    },
    "engine/completions": {"completions"},
    "engine/plain_rows": {"completions", "completions_merged"},
    "engine/divergence": {"ships", "completions"},
    "attribution/refusal_shift": {"ships", *BY_MARGIN},
    "attribution/refusal_margin": BY_MARGIN,
    "engine/gates": {"refusal_direction", "gradient", "mask"},
    "engine/contributions": {"refusal_direction"},
    **{f"engine/{name}": {"attention"} for name in ("attention_weights", "implementations")},
    **{f"engine/{name}": set() for name in ("model_checks", "probes", "reference_attention")},
    **{
        f"engine/{name}": SCORES_AND_COMPLETIONS
        for name in ("layer_shortcuts", "partial_forward", "positions", "prefix_cache", "self_checks", "shared_prefix")
    },
    **{f"engine/{name}": SCORES_AND_COMPLETIONS | JUDGED | {"attention"} for name in ("batches", "out_of_memory")},
    "engine/ablation": {*COMPUTING, "models_train", "judges", *JUDGED},
    "engine/supported_families": {*COMPUTING, "models", "models_train", "prompts", "verdicts", "judges", *JUDGED},
    **{f"models/{name}": {"judges", *JUDGED} for name in ("adapter", "classifier")},
    **{f"models/{name}": COMPUTING | JUDGED for name in ("open", "attention_weights")},
    **{f"attribution/{method}": {method} for method in (*SWEEPING, "attention")},
    "attribution/sahara": {"sahara", "sahara_centred"},
    "attribution/greedy": {"sahara", "sahara_centred", "displacement"},
    **{f"attribution/{name}": SWEEPING for name in ("scoring_passes", "climbing_pass", "beginning")},
    **dict.fromkeys(
        ("models/describe", "models/tokenizer", "models/files", "models/find", "engine/context"), "all that open models"
    ),
    "models/derived": {"models"},
    **{name: set() for name in ("engine/kernels", "models/gguf", "attribution/from_queries")},
    **{f"engine/{name}": {"utility"} for name in ("ablated", "task_accuracy")},
    **{f"models/{name}": set() for name in ("download", "hugging_face", "hugging_face_errors", "quiet", "tensors")},
}
"""Module -> the scripts that it counts for, where these are not the ones that compute with a model."""


@pytest.mark.parametrize(
    "name",
    sorted(
        path.relative_to(LIBRARY).with_suffix("").as_posix()
        for room in ("engine", "attribution", "models")
        for path in (LIBRARY / room).glob("[!_]*.py")
    ),
)
def test_another_number_in_a_module_is_found_by_the_rules_that_it_counts_for(name: str, library: Path) -> None:
    before, path = rules(library), library / f"{name}.py"
    path.write_text(with_another_number(path.read_text(encoding="utf-8")), encoding="utf-8")
    changed = {rule for rule, told in rules(library).items() if told != before[rule]}
    expected = FOUND_BY.get(name, {*COMPUTING, "judges", *JUDGED})
    if isinstance(expected, str):
        expected = {*COMPUTING, "models", "prompts", "verdicts", "judges", *JUDGED}
    assert changed == expected


def with_another_number(code: str) -> str:
    """The code with its last number in a function or constant one higher; with a new constant if it has no number."""
    constants = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    numbers = [node for node in constants if type(node.value) in (int, float)]
    outside = [node for node in numbers if not within_words(code, node)]
    if not outside:
        return code + "\n_NUMBER = 1\n"
    last = max(outside, key=lambda node: (node.lineno, node.col_offset))
    lines = code.splitlines(keepends=True)
    line = lines[last.lineno - 1].encode()
    lines[last.lineno - 1] = (
        line[: last.col_offset] + repr(last.value + 1).encode() + line[last.end_col_offset :]
    ).decode()
    return "".join(lines)


def within_words(code: str, number: ast.Constant) -> bool:
    """Whether a number stands in a `log` call, an error for people or an f-string, whose places Pythons tell apart."""
    for node in ast.walk(ast.parse(code)):
        words = isinstance(node, ast.Raise | ast.JoinedStr) or (
            isinstance(node, ast.Expr) and "log" in ast.unparse(node)[:4]
        )
        if words and node.lineno <= number.lineno <= (node.end_lineno or 0):
            return True
    return False


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("engine/layer_shortcuts", "raise _Reached(module, states)", "raise _Reached(module, (2 * states[0],))", 9),
        ("models/open", "dtype=dtype", 'dtype="float16"', 14),
        ("jobs/loaded_model", "dtype=dtype", 'dtype="float16"', 12),
        ("jobs/run", "logging.INFO", "logging.DEBUG", 0),
        ("artifacts/files", '"zstd"', '"snappy"', 0),
        ("config/load", "_plain(raw)", "_plain(dict(raw))", 0),
    ],
)
def test_holes_are_closed_and_what_only_reads_or_writes_counts_for_none(
    name: str, old: str, new: str, expected: int, library: Path
) -> None:
    before, path = rules(library), library / f"{name}.py"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    after = rules(library)
    changed = {rule for rule in before if before[rule] != after[rule]}
    assert len(changed) == expected
    assert expected == 0 or changed >= SCORES_AND_COMPLETIONS


def test_what_lies_beside_a_module_counts_with_it(library: Path) -> None:
    before = rules(library)
    for name in ("report/page.css", "report/template.html.j2"):
        with (library / name).open("a") as file:
            file.write(" ")
        assert {rule for rule in before if before[rule] != rules(library)[rule]} == {
            "report",
            "annotation",
            "experiments",
        }
    before = rules(library)
    with (library / "report/annotation/page.js").open("a") as file:
        file.write(" ")
    assert {rule for rule in before if before[rule] != rules(library)[rule]} == {"annotation"}
    (library / "report" / ".page.css.swp").write_bytes(b"\xff")
    before = rules(library)
    for name in ("engine/ablation.py~", "engine/ablation.py.orig", "judges/NOTES.md", "engine/x.png"):
        (library / name).write_bytes(b"\xff")
    (library / "judges" / "old.txt").mkdir()
    assert rules(library) == before, "what lies about does not count"
    (library / "report" / "__pycache__").mkdir()
    (library / "report" / "__pycache__" / "a.pyc").write_bytes(b"\xff")
    rules(library)


def test_what_runs_for_type_checkers_alone_does_not_count(tmp_path: Path) -> None:
    library = tmp_path / "safetyheads"
    library.mkdir()
    for name in ("__init__", "here", "there", "inner"):
        (library / f"{name}.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text(
        "from typing import TYPE_CHECKING\nfrom safetyheads import here\nif TYPE_CHECKING:\n"
        "    import safetyheads.there\ndef f():\n    from safetyheads.inner import g\n"
    )
    assert [path.stem for path in counted(script, library)] == ["here", "inner"]


def test_the_list_of_what_does_not_count_names_what_is_there_with_reasons() -> None:
    for name, reason in NOT_COUNTED.items():
        path = LIBRARY.joinpath(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file()
        assert reason


def test_the_library_imports_itself_by_whole_names() -> None:
    """The walk over imports knows no relative ones."""
    relative = re.compile(r"^\s*from \.", re.MULTILINE)
    assert [path for path in LIBRARY.rglob("*.py") if relative.search(path.read_text(encoding="utf-8"))] == []
