"""config/README.md and config/schema.json, made from documentation.md, the classes of the configuration, the catalogue.

python -m safetyheads.config.documentation            write both
python -m safetyheads.config.documentation --check    exit with status 1 if either is out of date
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from safetyheads.config.attribution import Attribution
from safetyheads.config.catalogue import BUILT_IN, CatalogueDataset, CatalogueJudge, CatalogueModel, catalogue
from safetyheads.config.schema import json_schema
from safetyheads.config.sections import Section
from safetyheads.demo.organisms import ORGANISMS
from safetyheads.methods import METHODS

FOLDER = Path(__file__).parents[3] / "config"

_TABLE = re.compile(r"<!-- table: (\w+) ?(\w*) -->\n")
"""Where the text of documentation.md wants a table of this kind, and what it is about."""


def markdown() -> str:
    """The text of config/README.md."""
    schema = json_schema()
    text = (Path(__file__).parent / "documentation.md").read_text(encoding="utf-8")

    def made(place: re.Match[str]) -> str:
        match place.groups():
            case ("names", _):
                return _names()
            case ("overview", _):
                sections = {name for name in schema["properties"] if f"\n## {name}\n" in text}
                rows = [
                    (f"[{name}](#{name})" if name in sections else f"`{name}`", entry["description"])
                    for name, entry in schema["properties"].items()
                ]
                return _table(("key", "meaning"), rows)
            case ("keys", name):
                return _keys(schema["$defs"][name])
            case ("methods", _):
                return _methods()
            case ("organisms", _):
                return _organisms()
            case ("catalogue", "models"):
                return _models()
            case ("catalogue", "judges"):
                return _judges()
            case _:
                return _datasets()

    return _TABLE.sub(made, text)


def _names() -> str:
    rows = [(section, f"`{name}`", _inline(entry)) for section in BUILT_IN for name, entry in BUILT_IN[section].items()]
    for section in ("models", "datasets", "judges"):
        rows.append((section, ", ".join(f"`{name}`" for name in catalogue(section)), "see [Catalogue](#catalogue)"))
    return _table(("section", "name", "stands for"), rows)


def _organisms() -> str:
    rows = [(f"`{kind.name}`", _yaml(list(map(str, kind.planted))), kind.truth) for kind in ORGANISMS.values()]
    return _table(("kind", "planted unless given", "the model"), rows)


def _inline(entry: Section) -> str:
    given = (
        f"{key}: {shorten(json.dumps(value), 72, placeholder=' ...')}"
        for key, value in entry.plain().items()
        if key in entry.model_fields_set
    )
    return f"`{{{', '.join(given)}}}`"


def _keys(section: Mapping[str, Any]) -> str:
    rows = []
    for key, entry in section["properties"].items():
        required = key in section.get("required", ())
        shown = "default" in entry and "$ref" not in entry
        default = "required" if required else f"`{_yaml(entry['default'])}`" if shown else ""
        rows.append((f"`{key}`", _type(entry), default, entry["description"]))
    return _table(("key", "type", "default", "meaning"), rows)


def _type(entry: Mapping[str, Any]) -> str:
    if "$ref" in entry:
        return "mapping"
    if "anyOf" in entry:
        return " or ".join(map(_type, entry["anyOf"]))
    if "const" in entry or "enum" in entry:
        return ", ".join(f"`{_yaml(value)}`" for value in entry.get("enum", [entry.get("const")]))
    words = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`", "object": "mapping"}
    return {**words, "number": "number"}.get(entry["type"], "list")


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return value or '""' if isinstance(value, str) else json.dumps(value)


def _methods() -> str:
    """The methods of attribution, and their cost for each of 100 prompts on a model of 1,024 heads."""
    rows, settings = [], Attribution().plain()
    for name, method in METHODS.items():
        sweeps, passes = method.sweeps(settings), method.passes(settings, 1024, 100) // 100
        cost = [f"{sweeps} {'sweep' if sweeps == 1 else 'sweeps'}"] if sweeps else []
        cost += [f"{passes:,} passes"] if passes else []
        cost += [f"1 sweep of {method.sampled(settings)} prompts"] if method.sampled(settings) else []
        benign = "needed, or a base model" if method.contrasted else method.benign
        rows.append((f"`{name}`", method.about, method.unit, method.chooses, benign, ", ".join(cost)))
    heading = ("method", "goes by", "unit", "chooses for", "benign data", "cost, 1,024 heads, 100 prompts")
    return _table(heading, rows)


def _models() -> str:
    rows = []
    for name, model in catalogue("models").items():
        if isinstance(model, CatalogueModel):
            source = f"[{model.repo}](https://huggingface.co/{model.repo})" + (", gated" if model.gated else "")
            grid = f"{model.layers} / {model.heads} / {model.kv_heads} / {model.head_dim}"
            rows.append((f"`{name}`", source, grid, model.note))
    return _table(("model", "repository", "layers / heads / kv heads / head size", "note"), rows)


def _judges() -> str:
    rows = []
    for name, judge in catalogue("judges").items():
        if isinstance(judge, CatalogueJudge):
            source = f"[{judge.repo}](https://huggingface.co/{judge.repo})" + (", gated" if judge.gated else "")
            rows.append((f"`{name}`", source, judge.kind, judge.detects or "harm", judge.licence, judge.note))
    return _table(("judge", "repository", "kind", "detects", "licence", "note"), rows)


def _datasets() -> str:
    rows = [
        (f"`{name}`", _source(data), str(data.rows), data.licence, data.note)
        for name, data in catalogue("datasets").items()
        if isinstance(data, CatalogueDataset)
    ]
    return _table(("data set", "source", "queries", "licence", "note"), rows)


def _source(data: CatalogueDataset) -> str:
    if data.demo:
        return "made by the demo"
    if data.repo:
        return f"[{data.repo}](https://huggingface.co/datasets/{data.repo})"
    owner, repository = str(data.url).split("/")[3:5]
    return f"[{owner}/{repository}](https://github.com/{owner}/{repository})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check both files; the exit status."""
    parser = argparse.ArgumentParser(description="Make config/README.md and config/schema.json.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    files = {FOLDER / "README.md": markdown(), FOLDER / "schema.json": schema}
    old = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if check:
            print(f"{path} is out of date: run `python -m safetyheads.config.documentation`.", file=sys.stderr)
        else:
            path.write_text(files[path], encoding="utf-8")
            print(f"Wrote {path}.")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
