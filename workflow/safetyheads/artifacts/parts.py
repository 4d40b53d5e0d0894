"""The finished batches of an unfinished artefact."""

import shutil
from errno import EEXIST, ENOENT, ESTALE
from pathlib import Path
from typing import Any

import numpy as np

from safetyheads.artifacts.files import digest, replace

ATTEMPTS = 5  # to write a part into a folder that another copy of the job deletes


class Parts:
    """The finished batches of an unfinished artefact, in a hidden folder beside it.

    The folder's name holds a digest of everything that determines the parts, so that those of other settings are never
    used: a restarted job continues after its last whole batch and gives the file of an uninterrupted one.

        .single.parquet.parts-3f2a.../000000.npy, 000001.npy, ...    token_budget 8192, killed at 90 %
        .single.parquet.parts-91c0.../000000.npy, ...                token_budget 4096, killed as well

    Both stay until the artefact is whole, because the user may come back to either. Two copies of one job may work at
    once (on a cluster, where one was taken for dead): what one has made serves both, and either may finish and delete
    the folder while the other goes on.
    """

    def __init__(self, output: Path, *determined_by: Any) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts-{digest(determined_by)}")

    def path(self, name: str) -> Path:
        """Where the part `name` is or will be."""
        return self.folder / f"{name}.npy"

    def load(self, name: str) -> np.ndarray | None:
        """The part `name`, or None if it has not been made or another copy of this job has deleted it."""
        try:
            part: np.ndarray = np.load(self.path(name), allow_pickle=False)
        except OSError as error:  # never mapped into memory: a file that another machine deletes takes the map with it
            if error.errno not in (ENOENT, ESTALE):
                raise
            return None
        return part

    def save(self, name: str, array: np.ndarray) -> None:
        """Keep `array` as the part `name`."""

        def write_to(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)

        for attempt in range(ATTEMPTS):
            try:
                return replace(self.path(name), write_to)
            except OSError as error:  # another copy of this job has just deleted the folder
                if error.errno not in (EEXIST, ENOENT, ESTALE) or attempt == ATTEMPTS - 1:
                    raise

    def remove(self) -> None:
        """Delete all parts, also those of other settings, once the artefact itself is on disk."""
        remove_parts(self.output)


def remove_parts(output: Path) -> None:
    """Delete the parts of an artefact that is on disk, whatever settings they were made with."""
    for folder in output.parent.glob(f".{output.name}.parts-*"):
        shutil.rmtree(folder, ignore_errors=True)
