"""The table of hours: sums of its jobs, silence for small studies, and unknown sizes are named."""

import pytest
from test_job_costs import config

from safetyheads.costs.cost_table import announcement, planned
from safetyheads.costs.job_costs import Estimates

LLAMA = ("llama-2-7b-chat", "advbench", "direct")


def test_rows_are_the_sums_of_their_jobs() -> None:
    found = Estimates(config(compute={"shards": "auto"}))
    vicuna = ("vicuna-7b-v1.5", *LLAMA[1:])
    jobs = planned(
        found,
        {"ships": [LLAMA, LLAMA, vicuna], "sahara": [LLAMA]},
        [(*LLAMA, "single", "greedy"), (*vicuna, "none", "greedy")],
    )
    told = announcement(found, jobs)
    assert told is not None
    headline, titles, llama, other, together = told.splitlines()
    assert "one A100 a job" in headline
    assert titles.split() == ["jobs", "ships", "sahara", "completions", "GPU", "hours"]
    ships, sahara = found.scores("ships", *LLAMA), found.scores("sahara", *LLAMA)
    shards = found.shards(*LLAMA, "single", "greedy")
    single = found.completions(*LLAMA, "single", "greedy", shards)
    assert ships is not None and sahara is not None and single is not None and shards > 1
    checks = found.checks(LLAMA[0])
    assert checks is not None
    hours = [2 * ships.seconds / 3600, sahara.seconds / 3600, shards * single.seconds / 3600]
    assert llama.split()[:2] == [LLAMA[0], str(1 + 2 + 1 + shards)]
    every = sum(hours) + checks.seconds / 3600
    assert [float(cell) for cell in llama.split()[2:]] == pytest.approx([*hours, every], abs=0.06)
    assert {len(cell.split(".")[1]) for cell in llama.split()[2:] if float(cell) < 1} <= {2}
    assert {len(cell.split(".")[1]) for cell in llama.split()[2:] if float(cell) > 1} == {1}
    assert together.split()[1] == str(2 + 3 + 1 + shards + 1)
    assert float(together.split()[-1]) == pytest.approx(float(llama.split()[-1]) + float(other.split()[-1]), abs=0.11)


def test_a_model_is_checked_once_and_the_checks_have_a_column_where_they_take_minutes() -> None:
    for compute, minutes in (({}, False), ({"device": "cpu"}, True)):
        found = Estimates(config(compute=compute))
        jobs = planned(found, {"ships": [LLAMA] * 4, "sahara": [LLAMA]}, [(*LLAMA, "single", "greedy")])
        assert [job.jobs for job in jobs if job.stage == "checks"] == [1]
        told = announcement(found, jobs)
        assert told is not None
        assert (told.splitlines()[1].split()[1] == "checks") == minutes
        every = sum(job.seconds or 0.0 for job in jobs) / 3600
        assert float(told.splitlines()[2].split()[-1]) == pytest.approx(every, abs=0.06)


def test_a_study_of_minutes_is_not_announced() -> None:
    found = Estimates(config())
    assert announcement(found, planned(found, {}, [(*LLAMA, "none", "greedy")] * 3)) is None
    assert announcement(found, planned(found, {}, [(*LLAMA, "none", "greedy")] * 30)) is not None


def test_what_is_unknown_is_named_with_its_jobs() -> None:
    found = Estimates(config(models={"new": {"repo": "someone/new"}}))
    told = announcement(found, planned(found, {"ships": [("new", *LLAMA[1:])] * 3, "sahara": [LLAMA]}, []))
    assert told is not None
    assert "new: 4 jobs whose time is unknown" in told.splitlines()[-1]
    alone = announcement(found, planned(found, {"ships": [("new", *LLAMA[1:])]}, []))
    assert alone is not None and len(alone.splitlines()) == 2


def test_a_cpu_has_hours_and_threads() -> None:
    found = Estimates(config(compute={"threads": 3, "device": "cpu"}))
    told = announcement(found, planned(found, {"ships": [LLAMA]}, []))
    assert told is not None
    assert "3 CPU threads a job" in told and "GPU" not in told
