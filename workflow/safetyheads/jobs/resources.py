"""What a job asks for: memory, time, GPUs, and into how many jobs a large cell is cut. All from the configuration."""

import re
from collections.abc import Mapping

from safetyheads.config.load import Config
from safetyheads.costs.job_costs import Estimates, Job
from safetyheads.jobs.cells import Cells
from safetyheads.models.load import AUTOMATIC

LEAST_MINUTES = 20
"""Of a job's time limit: a queue of slow disks may take its time to start one."""
UNKNOWN = (32_000_000_000, 12 * 3600.0)
"""Bytes of memory, and seconds, where the size of a model or data set is not known."""


class Requests:
    """The requests of a configuration's jobs; `keyed` has the keys of a job's path, as wildcards have them."""

    def __init__(self, config: Config) -> None:
        self.config, self.estimates = config, Estimates(config)

    def memory(self, stage: str, keyed: Mapping[str, str], attempt: int) -> int:
        """MB of the machine's memory: a quarter more than estimated, as much again at each attempt."""
        return round(1.25 * self._estimated(stage, keyed)[0] / 1e6) * attempt

    def runtime(self, stage: str, keyed: Mapping[str, str], attempt: int, longest: int | None = None) -> int:
        """Minutes: twice the estimate, as much again at each attempt, but no more than `longest`."""
        wanted = max(LEAST_MINUTES, round(2 * self._estimated(stage, keyed)[1] / 60)) * attempt
        return wanted if longest is None else min(wanted, longest)

    def shards(self, keyed: Mapping[str, str]) -> int:
        """The number of jobs that share a cell's completions."""
        return self.estimates.shards(*(keyed[key] for key in ("model", "dataset", "template", "plan", "decoding")))

    def models_of_several_shards(self, cells: Cells, name: str) -> str:
        """A constraint on the wildcard `model` that looks ahead: what follows must be a cell that several jobs share.

        `name` is the pattern of any model. With a count in the configuration all cells are shared, also those that no
        study has.
        """
        if self.config.compute.shards != "auto":
            return name
        found = {"/".join(cell[:6]) for cell in cells.all if self.shards(cell._asdict()) > 1}
        return rf"(?=(?:{'|'.join(map(re.escape, sorted(found)))})\.parquet$){name}"

    def gpus(self, model: str, *, on_gpu: bool) -> int:
        """GPUs of a job with this model; none where jobs run on the CPU."""
        return self.config.model(model).gpus if on_gpu else 0

    def dtype(self, model: str, *, on_gpu: bool) -> str:
        """The number format of a model, `auto` resolved, so that the plan says what a job will compute in."""
        wanted = self.config.model(model).dtype
        return AUTOMATIC["cuda" if on_gpu else "cpu"] if wanted == "auto" else wanted

    def _estimated(self, stage: str, keyed: Mapping[str, str]) -> tuple[int, float]:
        key = (keyed["model"], keyed["dataset"], keyed["template"])
        job: Job | None
        if stage.startswith("completions"):
            job = self.estimates.completions(*key, keyed["plan"], keyed["decoding"], self.shards(keyed))
        else:
            job = getattr(self.estimates, stage)(*key)
        return UNKNOWN if job is None else (job.host_memory, job.seconds)


def on_gpu(device: str, *, there: bool) -> bool:
    """Whether jobs run on GPUs, by `compute: device`; `there` says whether `auto` finds one."""
    return device.startswith("cuda") or (device == "auto" and there)
