"""From pydantic's errors to lines for a person: key path, what was found, what is allowed, the nearest known name."""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from safetyheads.errors import nearest

_ALLOWED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list such as [a, b]",
    "dict_type": "a mapping (lines of `key: value`)",
    "model_type": "a mapping (lines of `key: value`)",
    "model_attributes_type": "a mapping (lines of `key: value`)",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "invalid_key": "text",
}
"""Type of pydantic's error -> what is allowed."""

_MEANT = {"f32": "float32", "fp32": "float32", "fp16": "float16", "half": "float16"}
"""What other libraries call a value -> its name here, where that is not the nearest."""


def describe(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line for each problem in `error`, which came from validating `root`."""
    return [f"{key_path(one['loc'])}: {_problem(one, root)}" for one in error.errors(include_url=False)]


def key_path(location: Sequence[str | int]) -> str:
    """`studies.main.models[0]` for ("studies", "main", "models", 0)."""
    path = ""
    for key in location:
        if isinstance(key, int):
            path += f"[{key}]"
        elif key != "[key]":
            path += f".{key}" if re.fullmatch(r"[\w@-]+", key) else f"[{key!r}]"
    return path.removeprefix(".")


def prune(values: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """`values` without `studies` and the entries that `error` is about, such as `models.tiny` or `compute.shards`.

    What remains is valid by itself and can be checked further, so that all problems are told at once.
    """
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items() if key != "studies"}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        section, *rest = one["loc"]
        if rest and isinstance(kept.get(str(section)), dict):
            entries = kept[str(section)]
            for key in [key for key in entries if key == rest[0] or str(key) == str(rest[0])]:
                del entries[key]
        else:
            kept.pop(str(section), None)
    return {key: value for key, value in kept.items() if isinstance(key, str)}


def _problem(one: ErrorDetails, root: type[BaseModel]) -> str:
    kind, found, context = one["type"], one["input"], one.get("ctx", {})
    *place, key = one["loc"]
    if kind == "extra_forbidden":
        allowed = _keys(root, place)
        about = getattr(_annotation_at(root, place), "unknown", "")
        home = next((section for section in root.model_fields if str(key) in _keys(root, [section])), None)
        more = nearest(str(key), allowed) or (f" It is a key of {home}." if home else f" {about}" if about else "")
        return f"found the unknown key {key!r}; allowed here: {', '.join(allowed)}.{more}"
    if key == "[key]" and kind != "value_error":
        return f"found the name {found!r} ({_kind_of(found)}); allowed: text{_hint(kind, found)}"
    if kind == "missing":
        field = _field(root, one["loc"])
        about = " ".join((field.description or "").split()) if field else ""
        return f"found no such key; it is required. {about}".rstrip()
    if found is None:
        field = _field(root, one["loc"])
        leave_out = ", or leave the key out" if field and not field.is_required() else ""
        return f"found no value; allowed: a value{leave_out}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        meant = _MEANT.get(str(found).lower(), str(found))
        guessed = _hint("string_type", found)
        return f"found {found!r}; allowed: {', '.join(allowed)}{guessed}.{nearest(meant, allowed)}"
    if kind in ("too_short", "too_long"):
        count = (
            "1 entry" if (limit := context.get("min_length", context.get("max_length"))) == 1 else f"{limit} entries"
        )
        return f"found {found!r}; allowed: {'at least' if kind == 'too_short' else 'at most'} {count}"
    allowed_text = _ALLOWED.get(kind, one["msg"]).format(**context)
    return f"found {found!r} ({_kind_of(found)}); allowed: {allowed_text}{_hint(kind, found)}"


def _hint(kind: str, found: Any) -> str:
    if kind == "list_type" and isinstance(found, str):
        return f". Write [{found}]"
    if kind in ("string_type", "invalid_key") and not isinstance(found, str | list | dict):
        return f". YAML reads this as {_kind_of(found)}: put it in quotes"
    if kind == "bool_type" and isinstance(found, str) and isinstance(yaml.safe_load(found or "''"), bool):
        return f". Write {str(yaml.safe_load(found)).lower()}, without quotes"
    if kind in ("int_type", "int_from_float", "float_type") and (number := _number(found)) is not None:
        return f". Write {number}" if kind != "float_type" else f". Write {number}, without quotes"
    return ""


def _number(found: Any) -> int | None:
    """The whole number that a text or a number such as 1e4, '512' or 8192.0 means; None if it means none."""
    try:
        number = float(found)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if not isinstance(found, bool) and number.is_integer() else None


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    names = {str: "text", int: "a number", float: "a number", list: "a list", dict: "a mapping", date: "a date"}
    names |= {datetime: "a date", type(None): "no value"}
    return names.get(type(value), type(value).__name__)


def _keys(root: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys allowed in the mapping at `place`."""
    found = _annotation_at(root, place)
    return list(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else []


def _field(root: type[BaseModel], place: Sequence[str | int]) -> FieldInfo | None:
    """The declaration of the key at `place`, if it is a key of a section rather than a name or a list's entry."""
    parent = _annotation_at(root, place[:-1])
    return (
        parent.model_fields.get(str(place[-1])) if isinstance(parent, type) and issubclass(parent, BaseModel) else None
    )


def _annotation_at(root: type[BaseModel], place: Sequence[str | int]) -> Any:
    """The class of the mapping at `place`, found through the fields' types."""
    here: Any = root
    for key in place:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(key)].annotation
        elif get_origin(here) is dict:
            here = get_args(here)[1]
        if get_origin(here) is not dict:
            here = next((part for part in (here, *get_args(here)) if isinstance(part, type)), here)
    return here
