"""What is wrong with the files of a judge that are on this machine, so that it is told before any job."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetyheads.config.hints import path_hint
from safetyheads.config.local_files import looked_for, model_folder
from safetyheads.config.local_models import read_config
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.judging import CHAT, PLACES, pieces

if TYPE_CHECKING:
    from safetyheads.config.judges import Judge
    from safetyheads.config.load import Declarations


def check_judge(config: "Declarations", name: str, folder: Path) -> Iterator[str]:
    """What is missing of the files of a judge. A file of verdicts may be made later."""
    judge, where = config.judge(name), f"judges.{name}"
    if judge.needs_model:
        yield from model_folder(where, judge.path, folder)
        yield from _template(judge, f"{where}.template", folder)
        yield from _classes(judge, f"{where}.classes", folder)
    template = judge.template_file
    if template and not (folder / Path(template).expanduser()).is_file():
        yield (
            f"{where}.template: found {template!r}, where there is no file ({looked_for(folder, template)}); allowed: "
            f"text with {{query}} and {{answer}}, chat, or the path of a text file{path_hint(template)}"
        )
    if judge.adapter and judge.adapter.path and not (folder / Path(judge.adapter.path).expanduser()).is_dir():
        path = judge.adapter.path
        found = f"{where}.adapter.path: found {path!r}, where there is no folder"
        yield f"{found} ({looked_for(folder, path)}); allowed: a folder"
    if judge.labels in (known := config.known("datasets")):
        if not config.dataset(str(judge.labels)).answer:
            yield f"{where}.labels: found the data set {judge.labels!r}, which has no `answer`; allowed: one that has"
    elif judge.labels and not (folder / Path(judge.labels).expanduser()).is_file():
        yield (
            f"{where}.labels: found {judge.labels!r}, which is no data set, and where there is no file "
            f"({looked_for(folder, judge.labels)}); allowed: the path of a CSV file, or a data set with `answer`."
            f"{nearest(judge.labels, [one for one in known if config.dataset(one).answer])}"
        )
    elif judge.labels:
        yield from _columns(f"{where}.labels", judge.labels, folder)


def _template(judge: "Judge", where: str, folder: Path) -> Iterator[str]:
    """The problem of a template without its places, where it is written in the configuration or in a file here."""
    text = judge.template if isinstance(judge.template, str) else CHAT
    if file := judge.template_file:
        try:
            text = (folder / Path(file).expanduser()).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return
    if text == CHAT:
        return
    about = f"{where}: found {file!r}, but" if file else f"{where}:"
    try:
        count = Counter(place for _, place in pieces(text))
    except SafetyHeadsError as error:
        yield f"{about} {error}"
        return
    for place, names in PLACES.items():
        wanted = (0, 1) if judge.kind == "classifier" and place == "query" else (1,)
        if count[place] not in wanted:
            known = " or ".join(f"{{{name}}}" for name in names)
            yield f"{about} it has {count[place]} places for the {place}; allowed: one, called {known}"


def _classes(judge: "Judge", where: str, folder: Path) -> Iterator[str]:
    """The labels that a classifier in a folder here does not have."""
    labels = read_config(folder / judge.path).get("id2label") if judge.path else None
    if not isinstance(labels, dict):
        return
    names = [str(name) for name in labels.values()]
    for label in judge.classes or ():
        if str(label) not in (*names, *labels):
            allowed = ", ".join(f"{name} ({number})" for number, name in labels.items())
            yield f"{where}: found {label!r}; allowed: {allowed}.{nearest(str(label), names)}"


def _columns(where: str, labels: str, folder: Path) -> Iterator[str]:
    """The columns that a CSV file with labels lacks."""
    try:
        with (folder / Path(labels).expanduser()).open(encoding="utf-8-sig", newline="") as file:
            found = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return  # the job that reads it says what it is
    for names in (("query",), ("text",), ("harmful", "label")):
        if not set(names) & set(found):
            there = ", ".join(map(repr, found)) or "nothing"
            yield (
                f"{where}: found {labels!r} with the columns {there}; allowed: query, text, harmful (or label), and "
                f"optionally condition, annotator, stratum, weight, id"
            )
            return
