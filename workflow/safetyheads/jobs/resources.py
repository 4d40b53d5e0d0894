"""What a job asks Snakemake or Slurm for: memory, time and GPUs, and into how many jobs a large cell is divided.

Everything follows from the configuration, before any model is loaded.
"""

import re
from collections.abc import Mapping
from functools import cache, cached_property

from safetyheads.config.load import Config
from safetyheads.costs.job_costs import Estimates, Job
from safetyheads.jobs.cells import CHECKED, SHARD, Cells
from safetyheads.jobs.gpu_lease import list_gpus
from safetyheads.jobs.judge_cells import JudgeCells
from safetyheads.models.load import AUTOMATIC

LEAST_MINUTES = 20
"""The shortest time limit of a job. Where disks are slow, starting a job alone may take minutes."""
UNKNOWN = (32_000_000_000, 12 * 3600.0)
"""Bytes of memory and seconds that a job asks for where the size of its model or data set is not known yet."""


class Requests:
    """What the jobs of a configuration ask for.

    In all methods `keyed` holds the keys of the job's path, such as `model` and `dataset`, as Snakemake's wildcards do.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.estimates = config, Estimates(config)

    @cached_property
    def answers(self) -> dict[tuple[str, str, str, str], list[tuple[str, str]]]:
        """The plans and decodings that a judge's model judges, by judge, model, data set and template."""
        return JudgeCells(Cells(self.config)).judged_plans()

    def memory(self, stage: str, keyed: Mapping[str, str], attempt: int) -> int:
        """MB of main memory: 1.25 times the estimate, multiplied by `attempt` (1, 2, ...) after a job has failed."""
        return round(1.25 * self._estimated(stage, keyed)[0] / 1e6) * attempt

    def runtime(self, stage: str, keyed: Mapping[str, str], attempt: int, longest: int | None = None) -> int:
        """Minutes: twice the estimate and at least `LEAST_MINUTES`, multiplied by `attempt`, but at most `longest`."""
        wanted = max(LEAST_MINUTES, round(2 * self._estimated(stage, keyed)[1] / 60)) * attempt
        return wanted if longest is None else min(wanted, longest)

    def shards(self, keyed: Mapping[str, str]) -> int:
        """The number of jobs among which the batches of a cell's completions are divided."""
        return self.estimates.shards(*(keyed[key] for key in ("model", "dataset", "template", "plan", "decoding")))

    def shard_paths(self, keyed: Mapping[str, str]) -> list[str]:
        """The paths of all shards of a cell's completions."""
        count = self.shards(keyed)
        return [SHARD.format(**keyed, shard=at, shards=count) for at in range(count)]

    def models_of_several_shards(self, cells: Cells, name: str) -> str:
        """A regular expression for the wildcard `model` that matches only in paths of cells that several jobs share.

        Two rules can make a file of completions: one job for the whole cell, or one that merges shards. Snakemake
        chooses by the constraints of wildcards, which see one wildcard each. So this one looks ahead (`(?=...)`) at the
        whole rest of the path. `name` is the pattern of any model's name. If the configuration gives a count of shards,
        every cell is divided, also one that no study has, and `name` itself is returned.
        """
        if self.config.compute.shards != "auto":
            return name
        found = {"/".join(cell[:6]) for cell in cells.all if self.shards(cell._asdict()) > 1}
        return rf"(?=(?:{'|'.join(map(re.escape, sorted(found)))})\.parquet$){name}"

    def gpus(self, model: str, *, on_gpu: bool) -> int:
        """The number of GPUs of a job with this model; 0 where jobs run on the CPU."""
        return self.config.model(model).gpus if on_gpu else 0

    def dtype(self, model: str, *, on_gpu: bool) -> str:
        """The number format in which a job computes with this model: `auto` becomes that of the CPU or of a GPU.

        It is a param of the job, so results of one machine are made again on a machine where `auto` means another one.
        """
        wanted = self.config.model(model).dtype
        return AUTOMATIC["cuda" if on_gpu else "cpu"] if wanted == "auto" else wanted

    def judge_gpus(self, judge: str, *, on_gpu: bool) -> int:
        """The number of GPUs of a job with this judge's model."""
        return self.config.judge(judge).gpus if on_gpu and self.config.judge(judge).needs_model else 0

    def judge_dtype(self, judge: str, *, on_gpu: bool) -> str:
        """The number format in which a job computes with this judge's model."""
        wanted = self.config.judge(judge).dtype
        return AUTOMATIC["cuda" if on_gpu else "cpu"] if wanted == "auto" else wanted

    def checks(self, model: str, *, on_gpu: bool) -> str:
        """The path of the checks of a model in the number format and with the attention that its jobs have."""
        attention = self.config.model(model).attention
        return CHECKED.format(model=model, dtype=self.dtype(model, on_gpu=on_gpu), attention=attention)

    def _estimated(self, stage: str, keyed: Mapping[str, str]) -> tuple[int, float]:
        job = self._job(stage, keyed)
        return UNKNOWN if job is None else (job.host_memory, job.seconds)

    def _job(self, stage: str, keyed: Mapping[str, str]) -> Job | None:
        if stage == "checks":
            return self.estimates.checks(keyed["model"])
        if stage == "utility":  # items are as many as the harness has: the memory is known, but not the time
            of_model = self.estimates.checks(keyed["model"])
            return of_model and of_model._replace(seconds=UNKNOWN[1])
        if stage == "labelled_by_model":
            return self.estimates.labelled(keyed["judge"])
        key = (keyed["model"], keyed["dataset"], keyed["template"])
        if stage == "judged":
            return self.estimates.judged(keyed["judge"], *key, self.answers[keyed["judge"], *key])
        if stage == "attention":
            return self.estimates.attention(*key)
        if stage.startswith("completions"):
            return self.estimates.completions(*key, keyed["plan"], keyed["decoding"], shards=self.shards(keyed))
        return self.estimates.scores(stage.removeprefix("scores_"), *key)


def on_gpu(device: str, *, there: bool) -> bool:
    """Whether jobs run on GPUs. `device` is what `compute: device` says; `there` tells whether `auto` finds a GPU."""
    return device.startswith("cuda") or (device == "auto" and there)


@cache
def gpu_here() -> bool:
    """Whether this machine has a GPU that answers. A driver that is broken counts as none."""
    return bool(list_gpus())
