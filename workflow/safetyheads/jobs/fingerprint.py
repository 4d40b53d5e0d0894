"""A fingerprint of the code behind a rule: it changes if the code may compute something else, not if words change.

Snakemake runs a rule again when its params change. The fingerprint is one of them, so that a change of the method makes
its numbers again, while a better docstring does not cost hours of computing.

Which code counts follows from the imports: a rule's script imports modules of the library, which import others. All of
them count unless they are on the short list `NOT_COUNTED`. If somebody forgets to list a harmless module there, rules
run again needlessly; numbers of old code are never kept. Of each module that counts, comments, docstrings, `log` calls
and the arguments of `raise SafetyHeadsError(...)` are left out.
"""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
PACKAGE = LIBRARY.name
TEXTS = (".css", ".j2", ".js", ".txt")
"""Endings of what the library reads besides its modules."""

NOT_COUNTED = {
    "": "the public door: users of the library come in by it, jobs do not",
    "errors": "words for people",
    "artifacts": "reads and writes; numbers are those of who writes them (columns keep the width given in schemas)",
    "config": "what a job takes from the configuration is among the params of its rule",
    "engine.model_checks": "only refuses",
    "engine.probes": "only refuses",
    "engine.reference_attention": "only refuses",
    "jobs.checked_model": "only refuses",
    "jobs.conditions": "only refuses",
    "jobs.gpu_lease": "which of several equal GPUs a job is given",
    "jobs.records": "only tells how a file was made",
    "jobs.run": "logs, and how errors are shown",
    "methods": "the lines that a job goes by are among the params of its rule",
    "models.download": "fetches; the sums of the files count",
    "models.hugging_face": "fetches; the sums of the files count",
    "models.hugging_face_errors": "words for people",
    "models.quiet": "silences a library",
    "models.tensors": "only refuses",
}
"""Modules and rooms that only read, write, report or check, and why each cannot change a number."""


def fingerprint(script: Path, library: Path = LIBRARY) -> str:
    """The fingerprint of a rule's script and of everything in `library` that counts for it: 16 hexadecimal digits."""
    told = [meaning(file.read_text(encoding="utf-8"), file.suffix) for file in (script, *counted(script, library))]
    return sha256("\n".join(told).encode()).hexdigest()[:16]


def counted(script: Path, library: Path = LIBRARY) -> list[Path]:
    """The files of the library that count for a script.

    These are the modules that it imports, directly or through others. In the packages among them, files other than
    Python count as well, such as the template of the page or a list of keywords.
    """
    found: dict[str, Path] = {}
    ahead = list(_imported(script, library))
    while ahead:
        name = ahead.pop()
        if name in found or _left_out(name):
            continue
        found[name] = _file(name, library)
        ahead += [*_imported(found[name], library), *_rooms_of(name)]
    modules = sorted(set(found.values()))
    rooms = [file.parent for file in modules if file.name == "__init__.py"]
    others = [file for room in rooms for file in sorted(room.glob("[!.]*")) if file.suffix in TEXTS and file.is_file()]
    return [*modules, *others]


def _left_out(name: str) -> bool:
    return name == "" or any(f"{name}.".startswith(f"{entry}.") for entry in NOT_COUNTED if entry)


def _rooms_of(name: str) -> Iterator[str]:
    """The packages that Python runs before a module: `report` and `report.figures` for `report.figures.maps`."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _file(name: str, library: Path) -> Path:
    path = library.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(file: Path, library: Path) -> Iterator[str]:
    """The modules of the library that a file imports when it runs, at its top or inside functions.

    Names go without the library's own: `heads`, not `safetyheads.heads`.
    """
    names = _imports(file.read_text(encoding="utf-8"))
    yield from (name for name in names if _file(name, library).is_file())


@cache
def _imports(code: str) -> tuple[str, ...]:
    """The names that code imports from the library.

    For `from safetyheads.report import figures` they are `report` and `report.figures`, because the code alone does not
    say whether `figures` is a module or a function. The caller keeps those that are modules.
    """
    found: list[str] = []
    for node in _running(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name.partition(".")[2] for name in found if f"{name}.".startswith(f"{PACKAGE}."))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a syntax tree, except those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


@cache  # several rules share most modules
def meaning(code: str, suffix: str = ".py") -> str:
    """The part of a file that may change a result: of Python its syntax tree as text, of any other file all of it.

    Two versions of a module that differ only in comments, docstrings, log messages or error messages give equal text.
    """
    return _told(ast.parse(code)) if suffix == ".py" else code


def _told(value: object) -> str:
    """A syntax tree as text that is the same on every version of Python.

    Newer versions add fields to the nodes, but all of them are empty for code that older versions can run. So empty
    fields are left out.
    """
    if isinstance(value, list):
        return ",".join(_told(entry) for entry in value if not _is_for_people(entry))
    if not isinstance(value, ast.AST):
        return ascii(value)
    if isinstance(value, ast.Raise) and _is_called(value.exc, "SafetyHeadsError"):
        return f"Raise(SafetyHeadsError,{value.cause and _told(value.cause)})"
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({_told(_pieces(value))})"
    fields = {name: _told(entry) for name, entry in ast.iter_fields(value) if entry is not None and name != "kind"}
    return f"{type(value).__name__}({';'.join(f'{name}={told}' for name, told in fields.items() if told)})"


def _pieces(string: ast.JoinedStr) -> list[ast.AST]:
    """The pieces of an f-string, with neighbouring pieces of plain text joined.

    Versions of Python cut the plain text between two braces in different places.
    """
    pieces: list[ast.AST] = []
    for node in string.values:
        before = pieces[-1] if pieces else None
        if not isinstance(node, ast.Constant):
            pieces.append(node)
        elif isinstance(before, ast.Constant):
            pieces[-1] = ast.Constant(str(before.value) + str(node.value))
        elif node.value:
            pieces.append(node)
    return pieces


def _is_for_people(node: ast.AST) -> bool:
    """Whether a statement is a docstring or a call of `log`."""
    if not isinstance(node, ast.Expr):
        return False
    value = node.value
    logs = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and _is_named(value.func.value, "log")
    return logs or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _is_called(node: ast.AST | None, name: str) -> bool:
    return isinstance(node, ast.Call) and _is_named(node.func, name)


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
