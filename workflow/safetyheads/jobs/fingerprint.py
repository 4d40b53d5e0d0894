"""A fingerprint of the code behind a rule: it changes with what the code computes, and with nothing else.

What counts follows from the imports. A script of a rule imports modules of the library, they import others: all of
them count, unless they are on the short list `NOT_COUNTED`. What is forgotten there counts too much, not too little. Of
each module, comments, docstrings, `log` calls and the arguments of `raise SafetyHeadsError(...)` are left out.
"""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
PACKAGE = LIBRARY.name

NOT_COUNTED = {
    "": "the public door: users of the library come in by it, jobs do not",
    "errors": "words for people",
    "artifacts": "reads and writes; what is in a file is decided by who writes it",
    "config": "what a job takes from the configuration is among the params of its rule",
    "jobs.conditions": "only refuses",
    "jobs.gpu_lease": "which of several equal GPUs a job is given",
    "jobs.records": "only tells how a file was made",
    "jobs.run": "logs, and how errors are shown",
    "models.download": "fetches; the sums of the files count",
    "models.hugging_face": "fetches; the sums of the files count",
    "models.hugging_face_errors": "words for people",
}
"""Modules and rooms that only read, write, report or check, and why each cannot change a number."""


def fingerprint(script: Path, library: Path = LIBRARY) -> str:
    """A digest of a rule's script and of everything that it imports from the library, less `NOT_COUNTED`."""
    told = [meaning(file.read_text(encoding="utf-8"), file.suffix) for file in (script, *counted(script, library))]
    return sha256("\n".join(told).encode()).hexdigest()[:16]


def counted(script: Path, library: Path = LIBRARY) -> list[Path]:
    """The files of the library that count for a script: modules, and what lies beside them (a page's template)."""
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
    others = [file for room in rooms for file in sorted(room.glob("[!.]*.*")) if file.suffix not in (".py", ".pyc")]
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
    """The modules of the library that a file imports when it runs, wherever in it, without the library's own name."""
    names = _imports(file.read_text(encoding="utf-8"))
    yield from (name for name in names if _file(name, library).is_file())


@cache
def _imports(code: str) -> tuple[str, ...]:
    """What code imports of the library by name: modules, and members of modules, which may be modules themselves."""
    found: list[str] = []
    for node in _running(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name.partition(".")[2] for name in found if f"{name}.".startswith(f"{PACKAGE}."))


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, without those under `if TYPE_CHECKING:`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


@cache  # rules share modules
def meaning(code: str, suffix: str = ".py") -> str:
    """What a file says to the computer: a Python module's syntax tree in words, any other file as it is."""
    return _told(ast.parse(code)) if suffix == ".py" else code


def _told(value: object) -> str:
    """A syntax tree as text, the same on every Python: empty fields, which is all that newer ones add, go."""
    if isinstance(value, list):
        return ",".join(_told(entry) for entry in value if not _is_for_people(entry))
    if not isinstance(value, ast.AST):
        return repr(value)
    if isinstance(value, ast.Raise) and _is_called(value.exc, "SafetyHeadsError"):
        return f"Raise(SafetyHeadsError,{value.cause and _told(value.cause)})"
    if isinstance(value, ast.JoinedStr):
        return f"JoinedStr({_told(_pieces(value))})"
    fields = {name: _told(entry) for name, entry in ast.iter_fields(value) if entry is not None and name != "kind"}
    return f"{type(value).__name__}({';'.join(f'{name}={told}' for name, told in fields.items() if told)})"


def _pieces(string: ast.JoinedStr) -> list[ast.AST]:
    """The pieces of an f-string, text that stands side by side put together: Pythons cut it differently."""
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
