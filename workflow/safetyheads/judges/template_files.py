"""Read a judge's template from a file: its own text, or a constant in the code of the judge's authors.

Nothing of such a file is run. Python constants are read as literals, also where they stand in a model card.
"""

import ast
import json
import re
from hashlib import sha256
from typing import Any

from safetyheads.errors import SafetyHeadsError


def entry_of(text: str, where: str, entry: str | None) -> str:
    """The template in the text of a file: all of it, or its `entry`.

    `entry` is `NAME` or `NAME.key` of an assignment of a string or of a dictionary of strings, as in a module of Python
    or within a model card, or the key of a JSON object. `where` is what messages call the file. Raises SafetyHeadsError
    if there is no such string.
    """
    if entry is None:
        return text
    name, _, key = entry.partition(".")
    try:
        value: Any = json.loads(text)
        value = value[name] if isinstance(value, dict) else None
    except (ValueError, LookupError):
        value = _constant(text, name)
    value = value.get(key) if key and isinstance(value, dict) else value
    if not isinstance(value, str):
        raise SafetyHeadsError(
            f"{where} has no text of the name {entry!r}. Look into the file for where the template is."
        )
    return value


def check_text(template: str, wanted: str, where: str) -> None:
    """Raise SafetyHeadsError unless the template has the checksum `wanted`, a SHA-256 of its UTF-8."""
    found = sha256(template.encode()).hexdigest()
    if found != wanted:
        raise SafetyHeadsError(
            f"The template in {where} is not the one that was pinned: expected sha256 {wanted}, found {found}. Its "
            "authors may have changed it. Verdicts by another template are another judge's: name the file with "
            "`template:` in a judge of your own if you want them."
        )


def _constant(text: str, name: str) -> Any:
    """The literal that is assigned to a name; None if there is none."""
    for found in re.finditer(rf"^[ \t]*{re.escape(name)}[ \t]*=[ \t]*", text, re.MULTILINE):
        rest = text[found.end() :]
        for end in (at.end() for at in re.finditer(r"(?:\"{1,3}|'{1,3}|[)\]}])[ \t]*(?:\n|$)", rest)):
            try:
                return ast.literal_eval(rest[:end].strip())
            except (SyntaxError, ValueError):
                continue
    return None
