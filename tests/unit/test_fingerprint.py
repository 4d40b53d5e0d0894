"""The fingerprint of code: what is computed counts, what is written for people does not."""

from pathlib import Path

import pytest

from safetyheads.jobs.fingerprint import fingerprint

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
        raise ValueError(f"width is {width}")
    log.info("width %s", width)
    return width * height + 1
'''


def of(folder: Path, code: str, name: str = "a.py") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(code, encoding="utf-8")
    return fingerprint([folder / name])


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
        ('ValueError(f"width is {width}")', "RuntimeError"),
        ('log.info("width %s", width)', 'log.warning("width is %s", width)'),
        ('    log.info("width %s", width)\n', ""),
    ],
)
def test_words_and_layout_do_not_count(old: str, new: str, tmp_path: Path) -> None:
    assert CODE.count(old) == 1
    assert of(tmp_path, CODE.replace(old, new)) == of(tmp_path, CODE)


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
        ("        raise ", "        return "),
        ("import logging", "import logging, math"),
        ('    raise ValueError(f"width is {width}")', "    pass"),
    ],
)
def test_what_is_computed_counts(old: str, new: str, tmp_path: Path) -> None:
    assert CODE.count(old) == 1
    assert of(tmp_path, CODE.replace(old, new)) != of(tmp_path, CODE)


def test_text_that_is_a_value_counts(tmp_path: Path) -> None:
    assert of(tmp_path, 'NAME = "a"') != of(tmp_path, 'NAME = "b"')
    assert of(tmp_path, 'print("a")') != of(tmp_path, 'print("b")')
    assert of(tmp_path, 'def f() -> str:\n    return "a"') != of(tmp_path, 'def f() -> str:\n    return "b"')


def test_other_files_count_by_their_text(tmp_path: Path) -> None:
    assert of(tmp_path, "/* a */ p {}", "page.css") != of(tmp_path, "/* b */ p {}", "page.css")
    assert of(tmp_path, "x = 1  # a", "a.txt") != of(tmp_path, "x = 1  # b", "a.txt")


def test_a_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "a.py").write_text("x = 1")
    (package / "inner" / "b.py").write_text("y = 1")
    (package / "page.css").write_text("p {}")
    before = fingerprint([package])
    assert fingerprint([package]) == before
    for path, text in (("a.py", "x = 2"), ("inner/b.py", "y = 2"), ("page.css", "q {}")):
        kept = (package / path).read_text()
        (package / path).write_text(text)
        assert fingerprint([package]) != before
        (package / path).write_text(kept)
    (package / "c.py").write_text("z = 1")
    assert fingerprint([package]) != before


def test_compiled_files_do_not_count(tmp_path: Path) -> None:
    before = of(tmp_path, CODE)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"\x00\xff")
    assert fingerprint([tmp_path]) == before


def test_the_order_of_files_counts_and_their_folder_does_not(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1")
        (tmp_path / name / "b.py").write_text("y = 1")
    here, there = tmp_path / "here", tmp_path / "there"
    assert fingerprint([here]) == fingerprint([there]) == fingerprint([here / "a.py", here / "b.py"])
    assert fingerprint([here / "b.py", here / "a.py"]) != fingerprint([here])


def test_code_and_text_of_the_same_words_differ(tmp_path: Path) -> None:
    assert of(tmp_path, "x = 1", "a.py") != of(tmp_path, "x = 1", "a.txt")


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    before = of(tmp_path, CODE)
    (tmp_path / ".a.py.swp").write_bytes(b"\xff\xfe")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "a.py").write_text("x = 2")
    (tmp_path / "notes.d").mkdir()
    assert fingerprint([tmp_path]) == before
