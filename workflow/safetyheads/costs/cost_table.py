"""The table that tells, before a run, how many hours a study takes."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from safetyheads.costs.job_costs import HOUR, Estimates, Job

STAGES = ("ships", "sahara", "completions")
WORTH_TELLING = 300.0
"""Seconds of work, starts of jobs left out: a shorter study is not announced."""


class Planned(NamedTuple):
    """A job, or the shards of one cell: its stage and model; seconds of all, and of those the work; None if unknown."""

    stage: str
    model: str
    jobs: int
    seconds: float | None
    work: float | None


def planned(
    estimates: Estimates,
    ships: Iterable[tuple[str, str, str]],
    sahara: Iterable[tuple[str, str, str]],
    completions: Iterable[tuple[str, str, str, str, str]],
) -> list[Planned]:
    """The jobs of a study: of model, data set, template; for completions also of plan and decoding.

    One key for each job; the same key may come several times, for several ablations.
    """
    found = [_planned("ships", key[0], 1, estimates.ships(*key)) for key in ships]
    found += [_planned("sahara", key[0], 1, estimates.sahara(*key)) for key in sahara]
    for key in completions:
        shards = estimates.shards(*key)
        found.append(_planned("completions", key[0], shards, estimates.completions(*key, shards=shards)))
    return found


def announcement(estimates: Estimates, jobs: Collection[Planned]) -> str | None:
    """The hours by model and stage, for people; None for a study of minutes."""
    known = [job for job in jobs if job.seconds is not None]
    unknown = [job for job in jobs if job.seconds is None]
    if not unknown and sum(job.work or 0.0 for job in jobs) < WORTH_TELLING:
        return None
    on_gpu = estimates.device != "cpu"
    device = (
        f"one {estimates.device.upper()} a job" if on_gpu else f"{estimates.config.compute.threads} CPU threads a job"
    )
    unit = "GPU hours" if on_gpu else "hours"
    rows: list[tuple[str, ...]] = [("", "jobs", *STAGES, unit)]
    models = sorted({job.model for job in known})
    groups = {model: [job for job in known if job.model == model] for model in models}
    if len(models) > 1:
        groups["together"] = known
    for name, group in groups.items():
        by_stage = (sum(job.seconds or 0.0 for job in group if job.stage == stage) for stage in STAGES)
        total = sum(job.seconds or 0.0 for job in group)
        rows.append((name, str(sum(job.jobs for job in group)), *map(_hours, by_stage), _hours(total)))
    lines = [
        f"Estimate for the whole study, what is done already included, on {device} (see `compute: speed`). Completions "
        "count at their full length, so it may be less:"
    ]
    lines += _aligned(rows) if known else []
    for model in sorted({job.model for job in unknown}):
        count = sum(job.jobs for job in unknown if job.model == model)
        lines.append(
            f"  {model}: {count} jobs whose time is unknown, because the model or a data set is neither local nor in "
            "config/catalogue."
        )
    return "\n".join(lines)


def _planned(stage: str, model: str, jobs: int, job: Job | None) -> Planned:
    if job is None:
        return Planned(stage, model, jobs, None, None)
    return Planned(stage, model, jobs, jobs * job.seconds, jobs * job.work)


def _hours(seconds: float) -> str:
    return f"{seconds / HOUR:.1f}" if seconds else "-"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]
