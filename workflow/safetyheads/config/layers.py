"""What a configuration is put together from: files, one on top of the other, and the words of --config on top of them.

Snakemake merges them as well, but hands over every number within a value of --config as text. So the words are read
here once more, as YAML, like the files. What YAML would read as something else than what is written (a key that is
there twice, a date, 010 for eight) is refused here, where the line is still known.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from safetyheads.config.catalogue import yaml_loader
from safetyheads.config.messages import key_path
from safetyheads.errors import SafetyHeadsError

_EXAMPLE = "--config 'compute={token_budget: 512}'"
_OPTIONS = {"--configfile": ("--configfile", "--configfiles"), "--config": ("--config", "-C")}
"""Option -> its spellings."""

_READ_AS = {"bool": "a truth value", "null": "no value", "timestamp": "a date"}


def check_options_once(arguments: Sequence[str]) -> None:
    """Raise SafetyHeadsError if a command line has --configfile or --config twice: Snakemake takes the last alone."""
    for option, spellings in _OPTIONS.items():
        given = [one for one in arguments if one.partition("=")[0] in spellings or one[:2] in spellings]
        if len(given) > 1:
            raise SafetyHeadsError(
                f"{option}: found {len(given)} times, of which Snakemake takes the last; allowed: once. Write all "
                f"behind it: {option} {'a.yaml b.yaml' if option == '--configfile' else 'one=... two=...'}"
            )


def check_file(file: Path) -> None:
    """Raise SafetyHeadsError if a YAML file names a key twice, or holds what YAML reads as something else.

    Readers of YAML keep the last of two equal keys, silently, and take 2024-05-01 for a date, 010 for eight, 12:30 for
    750, and a name such as `no` for a truth value. The message has the line.
    """
    try:
        node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml_loader())
    except yaml.YAMLError:
        return  # JSON that is no YAML, which Snakemake has read as JSON
    if problems := list(_misread(node)):
        raise SafetyHeadsError("\n".join(f"{file}, line {line}: {said}" for line, said in problems))


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """The values of --config, such as `compute={token_budget: 512}`, read as YAML.

    Raises SafetyHeadsError for what is not YAML or would be misread, and for what no shell hands on as it stands.
    """
    values: dict[str, Any] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key == "results" and text:  # the only text at the top, a path: not read as YAML, so that it needs no quotes
            values[key] = text.strip("'\"")
            continue
        if "`" in text or "$(" in text or ('"' in text and "'" in text):
            raise SafetyHeadsError(
                f"--config: found {word!r}, with a backtick, `$(` or both kinds of quotes; allowed: none of them, as "
                "Snakemake hands these words to its jobs through a shell. Write it into a file, and put that on top: "
                "--configfile my-study.yaml more.yaml"
            )
        try:
            node = yaml.compose(text, Loader=yaml_loader())
            value = yaml.load(text, Loader=yaml_loader())
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "it cannot be read"
            raise SafetyHeadsError(
                f"--config: found {word!r}, which is not YAML ({problem}); allowed: KEY=VALUE with the value as in a "
                f"configuration file, in single quotes, because the shell changes braces and spaces: {_EXAMPLE}"
            ) from None
        if problems := [said for _, said in _misread(node)]:
            raise SafetyHeadsError("\n".join(f"--config {key}: {said}" for said in problems))
        if glued := next((name for name in _keys_without_value(value) if ":" in name), None):
            raise SafetyHeadsError(
                f"--config: found {word!r}, where {glued!r} is a key without value; allowed: a space after each colon, "
                f"as in {_EXAMPLE}"
            )
        merge(values, {key: value})
    return values


def put_together(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[dict[str, Any], list[str]]:
    """The values of all layers, and a line for each value that a later layer puts in place of an earlier one.

    `layers` are names with values. In mappings only the keys that the later layer names are changed; lists, text and
    numbers are replaced as a whole.
    """
    values: dict[str, Any] = {}
    told: list[str] = []
    for number, (name, layer) in enumerate(layers):
        changes = list(merge(values, layer))
        told += [f"{name} sets {change}" for change in changes if number]
    return values, told


def merge(values: dict[str, Any], layer: Mapping[str, Any], place: tuple[str, ...] = ()) -> list[str]:
    """Put `layer` on top of `values`, in place. Returns a line for each value, such as `compute.shards: 4 (was: 1)`."""
    told = []
    for key, value in layer.items():
        here, before = (*place, str(key)), values.get(key)
        if isinstance(value, Mapping):
            inner = dict(before) if isinstance(before, Mapping) else {}
            told += merge(inner, value, here)
            values[key] = inner
        elif key not in values or before != value:
            values[key] = value
            told.append(f"{key_path(here)}: {value!r}" + (f" (was: {before!r})" if before is not None else ""))
    return told


def _misread(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Line and problem of every key that is there twice, and of all that YAML reads as something else than it looks."""
    ahead = [node] if node is not None else []
    seen: set[int] = set()
    found: list[tuple[int, str]] = []
    while ahead:
        one = ahead.pop()
        if id(one) in seen:  # an alias
            continue
        seen.add(id(one))
        if isinstance(one, yaml.MappingNode):
            keys = [key.value for key, _ in one.value]
            for (key, value), name in zip(one.value, keys):
                if keys.count(name) > 1:
                    found.append(
                        (
                            _line(key),
                            f"found the key {name!r} {keys.count(name)} times in one section; allowed: once. Put its "
                            "values together, or rename one.",
                        )
                    )
                found += _misread_scalar(key, as_text=True)
                ahead.append(value)
        elif isinstance(one, yaml.SequenceNode):
            for entry in one.value:
                found += _misread_scalar(entry, as_text=True)
                ahead.append(entry)
        else:
            found += _misread_scalar(one)
    return iter(sorted(set(found)))


def _misread_scalar(node: yaml.Node, *, as_text: bool = False) -> list[tuple[int, str]]:
    """The problem of a key or a value; `as_text` where only text makes sense, as for names and entries of lists."""
    if not isinstance(node, yaml.ScalarNode):
        return []
    kind, written = str(node.tag).rpartition(":")[2], node.value
    if kind == "timestamp" or (as_text and kind in ("bool", "null")):
        said, instead = _READ_AS[kind], ""
    elif kind in ("int", "float") and re.fullmatch(r"[-+]?(?:0\d+|\d[\d_]*(?::[\d.]+)+)", written):
        said = f"the number {yaml.safe_load(written)}"
        instead = f"{yaml.safe_load(written)}, or "
    else:
        return []
    shown = written or "nothing"
    quotes = f"text, in quotes: '{written}'" if written else "text"
    return [(_line(node), f"found {shown}, which YAML reads as {said}; allowed: {instead}{quotes}")]


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _keys_without_value(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            if entry is None:
                yield str(key)
            yield from _keys_without_value(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _keys_without_value(entry)
