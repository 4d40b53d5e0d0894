"""The table that tells, before a run, how many hours a study takes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from safetyheads.costs.job_costs import HOUR, Estimates, Job
from safetyheads.methods import SCORES

STAGES = ("checks", *SCORES, "attention", "completions", "judged")
WORTH_TELLING = 900.0  # seconds: a shorter study is not announced
WORTH_A_COLUMN = 180.0  # seconds of all checks: before they show as 0.1 hours, they are in the sum alone
Scored = Iterable[tuple[str, str, str]]
Completed = Iterable[tuple[str, str, str, str, str]]
Judged = Mapping[tuple[str, str, str, str], Sequence[tuple[str, str]]]


class Planned(NamedTuple):
    """A job, or the jobs that share a cell: stage and model, how many they are, seconds of all; None if unknown.

    The model is the one that computes. Of the stage `judged` it is that of the judge, named like the judge.
    """

    stage: str
    model: str
    jobs: int
    seconds: float | None


def planned(
    estimates: Estimates, scores: Mapping[str, Scored], completions: Completed, judged: Judged | None = None
) -> list[Planned]:
    """The jobs of a study. A key has model, data set and template; that of completions has plan and decoding too.

    `scores` has the keys, one for each job, by the name of the scores (`methods.SCORES`), or `attention`.
    `judged` has the plans and decodings that a judge's model judges, by judge, model, data set and template. Each of
    the models is checked once.
    """
    found: list[tuple[str, str, int, Job | None]] = []
    for name, keys in scores.items():
        for scored in keys:
            job = estimates.attention(*scored) if name == "attention" else estimates.scores(name, *scored)
            found.append((name, scored[0], 1, job))
    for key in completions:
        shards = estimates.shards(*key)
        found.append(("completions", key[0], shards, estimates.completions(*key, shards=shards)))
    found += [("checks", model, 1, estimates.checks(model)) for model in sorted({entry[1] for entry in found})]
    found += [("judged", key[0], 1, estimates.judged(*key, plans)) for key, plans in (judged or {}).items()]
    return [Planned(stage, model, jobs, job and jobs * job.seconds) for stage, model, jobs, job in found]


def announcement(estimates: Estimates, jobs: Collection[Planned]) -> str | None:
    """The hours by model and stage, for people; None for a study of minutes."""
    known, unknown = ([job for job in jobs if (job.seconds is None) == missing] for missing in (False, True))
    if not unknown and sum(job.seconds or 0.0 for job in known) < WORTH_TELLING:
        return None
    cpu, models = estimates.device == "cpu", sorted({job.model for job in known})
    threads = estimates.config.compute.threads
    device = f"{threads} CPU thread{'s' * (threads > 1)}" if cpu else f"one {estimates.device.upper()}"
    checks = sum(job.seconds or 0.0 for job in known if job.stage == "checks")
    used = {job.stage for job in known}
    always = {"ships", "sahara", "completions"}
    stages = [stage for stage in STAGES if stage in used | always and (stage != "checks" or checks >= WORTH_A_COLUMN)]
    rows = [["", "jobs", *stages, "hours" if cpu else "GPU hours"]] if known else []
    rows += [_row(model, [job for job in known if job.model == model], stages) for model in models]
    rows += [_row("together", known, stages)] if len(models) > 1 else []
    widths = [max(map(len, column)) for column in zip(*rows)]
    said = f"Estimate for the whole study, what is done already included, on {device} a job (see `compute: speed`). "
    judged = " and each as another text to judge" if "judged" in used else ""
    lines = [said + f"Completions count at their full length{judged}, so it may be less:"]
    lines += ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    why = "jobs whose time is unknown, because the model or a data set is neither local nor in config/catalogue."
    for model in sorted({job.model for job in unknown}):
        lines.append(f"  {model}: {sum(job.jobs for job in unknown if job.model == model)} {why}")
    return "\n".join(lines)


def _row(name: str, jobs: Collection[Planned], stages: Collection[str]) -> list[str]:
    hours = [sum(job.seconds or 0.0 for job in jobs if job.stage == stage) / HOUR for stage in stages]
    every = sum(job.seconds or 0.0 for job in jobs) / HOUR
    return [name, str(sum(job.jobs for job in jobs)), *map(_hours, (*hours, every))]


def _hours(value: float) -> str:
    """Hours for people; of less than one, methods are to be compared by hundredths."""
    return "-" if not value else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
