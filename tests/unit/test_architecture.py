"""docs/architecture.md names files that are there, and for a field of data sets exactly those that it touches."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
READ = {".py", ".smk", ".yaml"}


def test_a_field_of_data_sets_touches_the_files_that_are_listed() -> None:
    listed = TEXT.split("occurs in these files -->")[1].split("<!-- end -->")[0]
    places = [*(ROOT / "workflow").rglob("*"), *(ROOT / "rules").glob("*"), *(ROOT / "config" / "catalogue").glob("*")]
    texts = {path: path.read_text(encoding="utf-8") for path in places if path.suffix in READ}
    touched = {path for path, text in texts.items() if re.search(r"^(?!\s*#).*\btarget\b", text, re.MULTILINE)}
    assert {path.relative_to(ROOT).as_posix() for path in touched} == set(
        re.findall(r"^- `(.+?)`", listed, re.MULTILINE)
    )


def test_what_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:workflow|rules|tests|config)/[\w./]+)`", TEXT))
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []
    rooms = {f"{name}/" for name in re.findall(r"`(\w+)/`", TEXT)} - {"workflow/safetyheads/"}
    assert all((ROOT / "workflow" / "safetyheads" / name).is_dir() for name in rooms if name not in ("rules/",))
