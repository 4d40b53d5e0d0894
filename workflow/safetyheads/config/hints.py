"""Hints for values that are allowed, but are probably not what was meant, and the ends of messages about such values.

A backslash may be meant, and so may braces in a prompt. So these are warnings at the start of a run, not errors.
"""

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from safetyheads.config.messages import key_path
from safetyheads.plans import parse_plan

if TYPE_CHECKING:
    from safetyheads.config.load import Config

_ESCAPE = re.compile(r"\\(?:n|[rt](?![a-z])|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
"""What stands for a character in double quotes. A backslash with other letters may be a path or a formula."""

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)

_PLACE = re.compile(
    r"\{\{?\s*[A-Za-z_][\w.]*(?:![rsa])?(?::[^{}]*)?\s*\}?\}|\{\d*\}|\[+\s*[A-Z_]{3,}\s*\]+|<\s*(?:query|QUERY)\s*>"
    r"|%s|%\(\w+\)s|\$\{?\w+\}?"
)
"""How other tools write the place of the query: `{prompt}`, `{{ query }}`, `{}`, `[QUERY]`, `%s`, `$query`."""

_FIELD = re.compile(r"(?<!\w)\{\{?[A-Za-z_]\w{2,}\}?\}")
"""What looks like a place to be filled in, and is no argument of TeX."""

_VARIABLE = re.compile(r"\$\{?[A-Za-z_]\w*\}?|%[A-Za-z_]\w*%")
_WINDOWS = re.compile(r"^[A-Za-z]:[\\/]|\\")
_LISTS = ("models", "datasets", "templates", "ablations", "decodings", "judges")


def hints(values: Mapping[str, Any], config: "Config") -> list[str]:
    """A line for each value of a configuration that is allowed, but may not be what was meant.

    `values` are the raw values of `config`.
    """
    found = [
        *_template_hints(config),
        *_escape_hints(config),
        *_unused_hints(values, config),
        *_steps_hints(values, config),
        *_benign_hints(config),
        *_sign_hints(config),
    ]
    return [f"Is this meant? {line}" for line in dict.fromkeys(found)]


def place_hint(text: str) -> str:
    """The end of a message about a template without `{query}`: what in it looks like the query's place."""
    found = _PLACE.search(text)
    return f". Write {{query}} in place of {found[0]}" if found else ""


def path_hint(path: str) -> str:
    """The end of a message about a path: what a shell, or Windows, would have made of it; empty if nothing."""
    if path.startswith("~") or _VARIABLE.search(path):
        meant = os.path.expanduser(os.path.expandvars(path))
        known = "" if meant == path or _VARIABLE.search(meant) else f": {meant}"
        return f". Variables and ~ are not filled in, as they differ between machines: write the path itself{known}"
    if re.match(r"^[A-Za-z]:", path) and _WINDOWS.search(path):
        inner = path[2:].replace("\\", "/")
        return f". This is a path of Windows; under WSL it is /mnt/{path[0].lower()}{inner}"
    if "\\" in path:
        return f". Folders are separated by /: {path.replace(chr(92), '/')}"
    if any(ord(character) < 32 for character in path):
        return ". It holds a control character: in double quotes YAML makes one of \\n and \\t. Write it without quotes"
    if path != path.strip():
        return ". It starts or ends with a space"
    return ""


def _template_hints(config: "Config") -> Iterator[str]:
    for name, template in config.templates.items():
        given = {key: getattr(template, key) for key in ("text", "system", "prefill") if getattr(template, key)}
        for key, text in given.items():
            where = key_path(("templates", name, key))
            if key != "text" and (query := re.search(r"\{\{?\s*query\s*\}?\}", text)):
                yield f"{where}: found {query[0]}, which stays as it is here: the query is filled into `text` alone."
            elif "{{query}}" in text:
                yield f"{where}: found {{{{query}}}}, which puts braces around each query. Write {{query}} alone."
            elif other := [one for one in _FIELD.findall(text) if one != "{query}"]:
                yield f"{where}: found {other[0]}, which stays as it is: {{query}} alone is filled in."


def _escape_hints(config: "Config") -> Iterator[str]:
    """Texts in which a backslash and a letter probably stand for a line's end and its like."""
    texts: dict[tuple[str | int, ...], str | None] = {}
    for name, template in config.templates.items():
        for key in ("text", "system", "prefill"):
            texts["templates", name, key] = getattr(template, key)
    for name, model in config.models.items():
        texts["models", name, "chat_template"] = _JINJA.sub("", model.chat_template or "")
    for name, judge in config.judges.items():
        for at, keyword in enumerate(judge.list if isinstance(judge.list, list) else ()):
            texts["judges", name, "list", at] = keyword
    for place, text in texts.items():
        if found := _ESCAPE.search(text or ""):
            yield (
                f"{key_path(place)}: found {found[0]}, a backslash and a letter: only in double quotes YAML makes one "
                "character of it. Write \"...\" in place of '...' or of a text without quotes."
            )


def _unused_hints(values: Mapping[str, Any], config: "Config") -> Iterator[str]:
    """Declarations that no study uses, where one uses what is built in under nearly the same name."""
    for section in _LISTS:
        used = {name for study in config.studies.values() for name in getattr(study, section)}
        declared = getattr(config, section)
        built_in = [name for name in used if name not in declared]
        for name in declared:
            close = get_close_matches(name, built_in, n=1, cutoff=0.8) if name not in used else []
            if close and not name.startswith(close[0]) and not close[0].startswith(name):
                yield (
                    f"{key_path((section, name))}: no study uses it; one uses {close[0]!r}, which is built in or in "
                    "the catalogue."
                )


def _steps_hints(values: Mapping[str, Any], config: "Config") -> Iterator[str]:
    """Steps of Sahara that were not asked for, and that no plan uses: each costs as much as the first."""
    plans = [
        parse_plan(plan)
        for study in config.studies.values()
        if not all(config.model(name).demo for name in study.models)
        for plan in study.plans
    ]
    largest, method = max(
        ((plan.n or 0, plan.group.kind) for plan in plans if plan.method and plan.method.searches), default=(0, "")
    )
    if 0 < largest < config.attribution.steps and "steps" not in (values.get("attribution") or {}):
        yield (
            f"attribution.steps: it is {config.attribution.steps} unless set, but the largest group of the plans is "
            f"{method}-{largest}. With steps: {largest} the search takes {largest}/{config.attribution.steps} of the "
            "time."
        )


def _benign_hints(config: "Config") -> Iterator[str]:
    """Plans that are measured nowhere, because they are not made on benign data sets."""
    for study, asked in config.studies.items():
        if not all(config.dataset(name).benign for name in asked.datasets):
            continue
        for at, plan in enumerate(asked.plans):
            if not parse_plan(plan).on_benign([]):
                yield (
                    f"{key_path(('studies', study, 'plans', at))}: {plan} is not measured on benign data sets, and all "
                    "of this study are. Add one that is not benign."
                )


def _sign_hints(config: "Config") -> Iterator[str]:
    """Benign queries by which the signs of Ships go: none where there are several, or others than benign ones."""
    plans = [parse_plan(plan) for study in config.studies.values() for plan in study.plans]
    models = {name for study in config.studies.values() for name in study.models}
    if not any(plan.method and plan.method.benign != "none" for plan in plans):
        return
    known, named = config.benign_sets(config.named), config.attribution.benign
    if named and not config.dataset(named).benign:
        yield f"attribution.benign: {named} is not marked `benign: true`; its queries are taken to be ones to answer."
    elif len(known) > 1 and any(config.benign_of(name, config.named) is None for name in models):
        yield (
            f"attribution.benign: there are several benign data sets ({', '.join(known)}) and none is chosen, so Ships "
            "have no answer_shift. To choose one later makes Ships again, and what uses them."
        )


def alike(config: Any) -> Iterator[str]:
    """Problems of names that differ by upper and lower case alone: many file systems have one folder for both."""
    for section in (*_LISTS, "head_sets"):
        known: dict[str, str] = {}
        declared = getattr(config, section)
        for name in [*config.known(section)]:
            other = known.setdefault(name.casefold(), name)
            if other != name:
                mine, theirs = (name, other) if name in declared else (other, name)
                kind = "the name" if theirs in declared else "the built-in name"
                yield (
                    f"{key_path((section, mine))}: found a name that differs from {kind} {theirs!r} by upper and lower "
                    f"case alone; allowed: another name{'' if theirs in declared else f', or {theirs}, to override it'}"
                )
