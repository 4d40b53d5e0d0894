"""A fingerprint of code: it changes with what the code computes, not with its comments, docstrings or messages."""

import ast
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path


def fingerprint(sources: Iterable[Path]) -> str:
    """A digest of these files, and of all files in these folders, in order.

    Python counts by its syntax tree without docstrings, error messages and calls of `log`, other files by their text.
    """
    files = [file for source in sources for file in (_within(source) if source.is_dir() else [source])]
    texts = [(file.suffix, file.read_text(encoding="utf-8")) for file in files]
    meanings = [_meaning(text) if suffix == ".py" else text for suffix, text in texts]
    return sha256("\n".join(meanings).encode()).hexdigest()[:16]


def _within(folder: Path) -> list[Path]:
    """The files of a folder, in order, without compiled and hidden ones (caches, an editor's swap files)."""
    return sorted(
        file
        for file in folder.rglob("*.*")
        if file.is_file()
        and file.suffix != ".pyc"
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


@cache  # rules share modules
def _meaning(code: str) -> str:
    return ast.dump(_Wordless().visit(ast.parse(code)))


class _Wordless(ast.NodeTransformer):
    """Leaves out what is written for people."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        value = node.value
        docstring = isinstance(value, ast.Constant) and isinstance(value.value, str)
        logs = (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Attribute)
            and isinstance(value.func.value, ast.Name)
            and value.func.value.id == "log"
        )
        return None if docstring or logs else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(exc=None, cause=None)
