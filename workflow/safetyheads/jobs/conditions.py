"""Refuse to compare completions that were made under different conditions, such as another dtype or device.

Each of these rounds in its own way. Rounding can change a token and with it a verdict, so a difference between a cell
and its plain model could come from rounding alone and would be taken for the effect of the ablation.
"""

import os
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from safetyheads.artifacts.provenance import versions
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.run import CONFIGURATION
from safetyheads.plans import PLAIN

SHOWN = 5
"""The most files that an error lists."""


class Conditions(NamedTuple):
    """What must be the same for two cells to be compared."""

    dtype: str
    attention: str
    device: str
    torch: str
    transformers: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Conditions":
        """The conditions in the record of a file of completions.

        Shards of one cell may have been made under different ones; the value then names all of them.
        """
        found = (record.get(name, record["versions"].get(name)) for name in cls._fields)
        return cls(*(", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in found))


class Mixed(NamedTuple):
    """A file of completions whose conditions differ from those of its plain model's file.

    A file whose own shards were made under different conditions counts as well.
    """

    path: str
    plain: str
    ours: Conditions
    theirs: Conditions

    @property
    def words(self) -> str:
        """The differences for a person: `dtype bfloat16 (plain: float32)`."""
        pairs = zip(Conditions._fields, self.ours, self.theirs)
        return ", ".join(
            f"{name} {ours} (plain: {theirs})" for name, ours, theirs in pairs if ours != theirs or ", " in ours
        )


def mixed(records: Mapping[str, Mapping[str, Any]]) -> list[Mixed]:
    """The files of completions that cannot be compared with those of their plain model, sorted by path.

    `records` has the record of each file by its path under results/. Files of other stages are passed over.
    """
    made = {path: Conditions.of(record) for path, record in records.items() if path.startswith("completions/")}
    found = []
    for path, ours in sorted(made.items()):
        *place, _, _, decoding = path.split("/")
        plain = "/".join([*place, PLAIN, "none", decoding])
        if plain in made and (ours != made[plain] or any(", " in value for value in ours)):
            found.append(Mixed(path, plain, ours, made[plain]))
    return found


def check_comparable(records: Mapping[str, Mapping[str, Any]], results: str) -> None:
    """Raise SafetyHeadsError if cells would be compared that were made under different conditions.

    `records` is as in `mixed`; `results` is the folder that the message puts before their paths. The message also has
    the command that makes them comparable, with as few files made again as possible.
    """
    found = mixed(records)
    if not found:
        return
    lines = [f"  {results}/{one.path}: {one.words}" for one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more")
    anew = shlex.join(f"{results}/{path}" for path in _to_be_made_anew(found))
    command = " ".join(filter(None, ["snakemake --cores 1", os.environ.get(CONFIGURATION), f"--forcerun {anew}"]))
    raise SafetyHeadsError(
        "These completions and those of their plain model were made under different conditions, so that they may "
        "differ by rounding alone:\n" + "\n".join(lines) + f"\nMake them anew: {command}\n"
        "(with --workflow-profile, if you use it). Or allow it by `compute: {mixed: true}`; the page "
        "then says so at its top."
    )


def _to_be_made_anew(found: list[Mixed]) -> list[str]:
    """The files to make again so that all conditions are the same.

    A new file is made with the versions that are installed now. So only conditions with these versions can be reached,
    and among them those that most files already have are kept. All other files are to be made again.
    """
    made = {one.path: one.ours for one in found} | {one.plain: one.theirs for one in found}
    today = tuple(versions().get(library) for library in ("torch", "transformers"))
    often = Counter(own for own in made.values() if (own.torch, own.transformers) == today)
    kept = min(often, key=lambda own: (-often[own], own), default=None)
    return sorted(path for path, own in made.items() if own != kept)
