"""The README lists the families of the tests, and what is special about each."""

from pathlib import Path

from registry import FAMILIES, REFUSED

README = Path(__file__).parents[2] / "README.md"


def table(heading: str) -> dict[str, str]:
    """The rows below a table's heading."""
    lines = README.read_text(encoding="utf-8").split(f"{heading}\n|---|---|\n")[1].split("\n\n")[0].splitlines()
    return dict(tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)


def test_the_readme_lists_the_families_that_are_tested() -> None:
    assert table("| family | what is special about it |") == {family.name: family.special for family in FAMILIES}


def test_the_readme_lists_the_families_that_are_refused() -> None:
    assert table("| family | why |") == {name: refused.why for name, refused in REFUSED.items()}


def test_eager_attention_is_where_the_readme_says_so() -> None:
    assert {family.name for family in FAMILIES if "eager" in family.special} == {
        family.name for family in FAMILIES if family.eager
    }
