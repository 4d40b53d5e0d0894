"""Keep the finished batches of an unfinished artefact on disk, so that a restarted job need not compute them again."""

import shutil
from errno import EEXIST, ENOENT, ESTALE
from pathlib import Path
from typing import Any

import numpy as np

from safetyheads.artifacts.files import digest, replace

ATTEMPTS = 5  # how often to try to write a part into a folder that another copy of the job keeps deleting


class Parts:
    """The finished batches of an unfinished artefact, in a hidden folder beside it.

    A job that is restarted loads the parts that it finds and computes the rest. Its artefact equals that of a job
    that was never interrupted. Parts that were made with other settings must not be used, so the folder's name holds a
    digest of everything that determines the parts:

        .single.parquet.parts-3f2a.../000000.npy, 000001.npy, ...    token_budget 8192, killed at 90 %
        .single.parquet.parts-91c0.../000000.npy, ...                token_budget 4096, killed as well

    Both stay until the artefact is whole, because the user may come back to either setting.

    Two copies of one job may run at once: on a cluster, a job that was taken for dead may still be running. Each uses
    what the other has made, and either may finish and delete the folder while the other goes on.
    """

    def __init__(self, output: Path, *determined_by: Any) -> None:
        """`output` is the artefact; `determined_by` are plain values, arrays and tables that determine its parts."""
        self.output = output
        self.folder = output.with_name(f".{output.name}.parts-{digest(determined_by)}")

    def path(self, name: str) -> Path:
        """The path of the part `name`, whether it exists or not."""
        return self.folder / f"{name}.npy"

    def load(self, name: str) -> np.ndarray | None:
        """The part `name`, or None if it has not been made, or has been deleted by another copy of this job.

        Other errors of the file system are raised as OSError.
        """
        try:
            part: np.ndarray = np.load(self.path(name), allow_pickle=False)
        except OSError as error:  # read, not mapped into memory: if another machine deleted it, the map would be gone
            if error.errno not in (ENOENT, ESTALE):
                raise
            return None
        return part

    def save(self, name: str, array: np.ndarray) -> None:
        """Keep `array`, of any shape and numeric dtype, as the part `name`. Raises OSError if it cannot be written."""

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
        """Delete all parts, also those of other settings. To be called once the artefact itself is on disk."""
        remove_parts(self.output)


def remove_parts(output: Path) -> None:
    """Delete the parts of an artefact that is on disk, whatever settings they were made with."""
    for folder in output.parent.glob(f".{output.name}.parts-*"):
        shutil.rmtree(folder, ignore_errors=True)
