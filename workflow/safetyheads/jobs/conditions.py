"""Were the cells that are compared made under the same conditions? Another dtype or device rounds in another way."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from safetyheads.artifacts.provenance import versions
from safetyheads.errors import SafetyHeadsError
from safetyheads.plans import PLAIN

CONFIGURATION = "SAFETYHEADS_CONFIGURATION"
"""The environment variable in which a run hands the names of its configuration files to its jobs."""
SHOWN = 5


class Conditions(NamedTuple):
    """What must be the same for two cells to be compared."""

    dtype: str
    attention: str
    device: str
    torch: str
    transformers: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Conditions":
        """Those of the record of completions. Shards that ran on several kinds of device name all of them."""
        values = {name: record.get(name, record["versions"].get(name)) for name in cls._fields}
        return cls(
            **{name: ", ".join(value) if isinstance(value, list) else str(value) for name, value in values.items()}
        )


class Mixed(NamedTuple):
    """A file of completions that differs from that of its plain model."""

    path: str
    plain: str
    ours: Conditions
    theirs: Conditions

    @property
    def words(self) -> str:
        pairs = zip(Conditions._fields, self.ours, self.theirs)
        return ", ".join(f"{name} {ours} (plain: {theirs})" for name, ours, theirs in pairs if ours != theirs)


def mixed(records: Mapping[str, Mapping[str, Any]]) -> list[Mixed]:
    """The files among `records`, by their paths under results/, that cannot be compared with their plain model's."""
    made = {path: Conditions.of(record) for path, record in records.items() if path.startswith("completions/")}
    found = []
    for path, ours in sorted(made.items()):
        *place, _, _, decoding = path.split("/")
        plain = "/".join([*place, PLAIN, "none", decoding])
        if plain in made and (ours != made[plain] or ", " in ours.device):
            found.append(Mixed(path, plain, ours, made[plain]))
    return found


def check_comparable(records: Mapping[str, Mapping[str, Any]], results: str) -> None:
    """Raise SafetyHeadsError if cells would be compared that were made under different conditions."""
    found = mixed(records)
    if not found:
        return
    lines = [f"  {results}/{one.path}: {one.words}" for one in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"  and {len(found) - SHOWN} more")
    anew = " ".join(f"{results}/{path}" for path in _to_be_made_anew(found))
    files = os.environ.get(CONFIGURATION, "")
    raise SafetyHeadsError(
        "These completions and those of their plain model were made under different conditions, so that they may "
        "differ by rounding alone:\n"
        + "\n".join(lines)
        + f"\nMake them anew: snakemake --cores 1{f' --configfile {files}' if files else ''} --forcerun {anew}\n"
        "Or allow it by `compute: {mixed: true}`; the page then says so at its top."
    )


def _to_be_made_anew(found: list[Mixed]) -> list[str]:
    """The files to make again: all but those of the most frequent conditions that can be had with today's versions."""
    made = {one.path: one.ours for one in found} | {one.plain: one.theirs for one in found}
    today = tuple(versions().get(library) for library in ("torch", "transformers"))
    often = Counter(own for own in made.values() if (own.torch, own.transformers) == today)
    kept = min(often, key=lambda own: (-often[own], own), default=None)
    return sorted(path for path, own in made.items() if own != kept)
