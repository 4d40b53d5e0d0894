"""The study through Slurm: the files of a local run, whatever happens to its jobs. One file, as there is one Slurm."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from project import Finished, Project
from slurm import CPU_PARTITION, GPUS, PARTITION, Slurm
from study import MINE, SAHARA, SHIPS, TARGETS
from watch import Process, Watch

pytestmark = pytest.mark.long

PROFILE = ("--workflow-profile", "slurm")
IN_THE_MIDDLE = 2  # parts that a job has made before something happens to it; Sahara makes 8 here

Fault = Callable[[Watch], bool]


def once(artefact: str, happens: Callable[[Watch, Process], object]) -> Fault:
    """A fault that comes when an artefact is in the making."""

    def fault(watch: Watch) -> bool:
        process = watch.worker(artefact) if watch.parts(artefact) >= IN_THE_MIDDLE else None
        if process is None or process.job is None:
            return False
        happens(watch, process)
        return True

    return fault


def cancel(watch: Watch, process: Process) -> None:
    watch.slurm.call("scancel", str(process.job))


def requeue(watch: Watch, process: Process) -> None:
    watch.slurm.call("scontrol", "requeue", str(process.job))


def hang_until_its_time_is_over(watch: Watch, process: Process) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    watch.slurm.call("scontrol", "update", f"JobId={process.job}", "EndTime=now")


@pytest.fixture(scope="module")
def faulty(
    fresh: Project, cluster: Slurm, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Project, Watch, Finished]]:
    """The study, run by Slurm, with a job killed for its memory, one out of time, one cancelled and one requeued."""
    project = fresh.copy(tmp_path_factory.mktemp("faulty") / "project")
    project.environment["HF_HUB_OFFLINE"] = "0"  # on the login node
    faults = {
        "cancelled": once(SHIPS, cancel),
        "out of time": once(SAHARA, hang_until_its_time_is_over),
        "requeued": once(MINE, requeue),
    }
    project.edit(
        "profiles/slurm/config.yaml",
        "    ?rule:\n",
        '    ?rule:\n      ?if rule == "sahara":\n        mem_mb: 450 if attempt == 1 else 4000\n',
    )
    with Watch(cluster, project.results, faults) as watch:
        result = project.run(*PROFILE, *TARGETS)
    yield project, watch, result


def assert_nothing_made_twice(watch: Watch, artefact: str) -> None:
    folder, name = artefact.rsplit("/", 1)
    parts = {part: files for part, files in watch.made.items() if part.startswith(f"{folder}/.{name}.parquet.parts-")}
    assert len(parts) > IN_THE_MIDDLE
    assert [part for part, files in parts.items() if len(files) > 1] == []


def test_the_files_are_those_of_a_local_run(faulty: tuple[Project, Watch, Finished], local: Project) -> None:
    project, watch, result = faulty
    assert result.status == 0, result.output[-5000:]
    assert sorted(watch.done) == ["cancelled", "out of time", "requeued"], "all faults came"
    made, expected = project.artefacts(), local.artefacts()
    assert set(made) == set(expected)
    assert [name for name in made if made[name] != expected[name]] == []
    assert project.temporary_files() == []


def test_faults_are_seen_for_what_they_are(faulty: tuple[Project, Watch, Finished]) -> None:
    project, _, result = faulty
    ends = Counter(re.findall(r"SLURM status is: '(\w+)'", result.output))
    assert ends == {"CANCELLED": 1, "TIMEOUT": 1, "FAILED": 1}, "requeueing is no failure"
    said = [log.read_text() for log in (project.folder / ".snakemake" / "slurm_logs").rglob("*.log")]
    assert any("memory limit" in text for text in said), "without cgroups, a job killed for its memory counts as failed"


@pytest.mark.parametrize("artefact", [SHIPS, SAHARA, MINE])
def test_no_batch_is_made_twice(artefact: str, faulty: tuple[Project, Watch, Finished]) -> None:
    assert_nothing_made_twice(faulty[1], artefact)


def test_gpu_stages_run_as_slurm_jobs_with_one_a100_each_two_at_a_time(faulty: tuple[Project, Watch, Finished]) -> None:
    project, watch, _ = faulty
    stages = ("ships/", "sahara/", "completions/")
    workers = {process for process in watch.workers if process.artefact.startswith(stages)}
    assert {process.artefact for process in workers} == {
        name for name in project.artefacts() if name.startswith(stages)
    }
    requests = [watch.requests.get(str(process.job)) for process in workers]
    assert all(request == {"gres:gpu:a100:1"} for request in requests), "none outside Slurm"
    assert all(process.offline for process in workers), "a compute node has no network"
    assert max(watch.at_once) == GPUS
    others = {process.job for process in watch.workers - workers} - {None}
    assert not any(watch.requests.get(str(job)) for job in others), "no GPU without need"


def test_a_node_that_dies_and_comes_back_costs_no_attempt(project: Project, cluster: Slurm, local: Project) -> None:
    def power_cut(watch: Watch, process: Process) -> None:
        cluster.stop_node()
        cluster.call("scontrol", "update", f"NodeName={cluster.host}", "State=DOWN", "Reason=power")
        cluster.wait_until(lambda: not cluster.jobs("RUNNING"), "the job still runs on a node that is down")
        cluster.start_node()

    with Watch(cluster, project.results, {"power cut": once(SHIPS, power_cut)}) as watch:
        result = project.run(*PROFILE, f"results/{SHIPS}.parquet", "--retries", "0")
    assert result.status == 0, result.output[-5000:]
    assert watch.done == ["power cut"]
    assert project.artefacts()[SHIPS] == local.artefacts()[SHIPS]
    assert_nothing_made_twice(watch, SHIPS)


def kill_in_the_middle(project: Project, watch: Watch, artefact: str) -> Process:
    """Kill Snakemake on the login node, with no chance to clean up, while its job is at work."""
    snakemake = project.start(*PROFILE, f"results/{artefact}.parquet")
    deadline = time.monotonic() + 120
    while watch.parts(artefact) < IN_THE_MIDDLE:
        assert snakemake.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process = watch.worker(artefact)
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    os.killpg(snakemake.pid, signal.SIGKILL)
    snakemake.communicate()
    return process


def test_after_the_controller_was_killed_live_jobs_are_named_and_what_they_made_is_used(
    project: Project, cluster: Slurm, local: Project
) -> None:
    target = f"results/{SAHARA}.parquet"
    with Watch(cluster, project.results) as watch:
        process = kill_in_the_middle(project, watch, SAHARA)
        locked = project.run(*PROFILE, target)
        assert locked.status != 0
        assert "--unlock" in locked.output
        assert project.run("--unlock").status == 0
        refused = project.run(*PROFILE, target)
        assert refused.status != 0
        assert f"`scancel {process.job}`" in refused.output
        cluster.call("scancel", str(process.job))
        cluster.wait_until(lambda: not cluster.jobs(), "the job would not go")
        assert project.make(*PROFILE, target) == {"sahara": 1}
    assert project.artefacts()[SAHARA] == local.artefacts()[SAHARA]
    assert_nothing_made_twice(watch, SAHARA)


def test_after_the_controller_was_killed_a_job_that_ends_by_itself_is_not_run_again(
    project: Project, cluster: Slurm, local: Project
) -> None:
    target = f"results/{MINE}.parquet"
    with Watch(cluster, project.results) as watch:
        process = kill_in_the_middle(project, watch, MINE)
        os.kill(process.pid, signal.SIGCONT)
        cluster.wait_until(lambda: not cluster.jobs(), "the job did not end", seconds=120)
        assert project.run("--unlock").status == 0
        assert project.make(*PROFILE, target) == {}
    assert project.artefacts()[MINE] == local.artefacts()[MINE]
    assert_nothing_made_twice(watch, MINE)


MISTAKES = {
    "a partition that there is not": (
        "gpu_partition: a100 ",
        "gpu_partition: a1000 ",
        ["'a1000'", "cpu (gpu:a100:2)", "Did you mean 'a100'?"],
    ),
    "a GPU that the partition has not": (
        "gpu_model: a100 ",
        "gpu_model: h100 ",
        ["'h100'", "gpu:a100:2", "allowed: a100"],
    ),
    "a feature that no node has": (
        'gpu_constraint: "" ',
        "gpu_constraint: a100x ",
        ["--constraint=a100x", "Invalid feature", "Set constraint and gpu_constraint"],
    ),
    "words that sbatch does not know": (
        'gpu_extra: "" ',
        "gpu_extra: --licence=x ",
        ["--licence", "unrecognized option", "Set extra and gpu_extra"],
    ),
    "accounting that there is not": ("status: squeue ", "status: sacct ", ["no accounting", "allowed: squeue"]),
    "jobs that are forgotten too soon": ("status-checks: 1\n", "status-checks: 101\n", ["101", "at most 100"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_would_fail_late_or_hang_stops_the_run_before_any_job(
    mistake: str, project: Project, cluster: Slurm
) -> None:
    right, wrong, said = MISTAKES[mistake]
    project.edit("profiles/slurm/config.yaml", right, wrong)
    before = cluster.call("squeue", "--noheader", "--states=all", "--format=%i")
    result = project.run(*PROFILE, f"results/{SHIPS}.parquet")
    assert result.status != 0
    message = result.output.strip().splitlines()[-1]
    assert message.startswith("profiles/slurm/config.yaml: ")
    assert [word for word in said if word not in message] == []
    assert "Traceback" not in result.output
    assert cluster.call("squeue", "--noheader", "--states=all", "--format=%i") == before


def test_jobs_go_where_extra_words_say_and_to_the_default_partition_where_none_is_named(
    project: Project, cluster: Slurm, local: Project
) -> None:
    """The GPU's model by --gpus-per-node, for models with a hyphen; its partition is hidden from those not root."""
    profile = "profiles/slurm/config.yaml"
    project.edit(profile, f"cpu_partition: {CPU_PARTITION} ", 'cpu_partition: "" ')
    project.edit(profile, 'gpu_extra: "" ', 'gpu_extra: "--gpus-per-node=a100:1 --nice=7" ')
    (project.results / "prompts" / "tiny" / "neutral" / "plainly.parquet").unlink()
    cluster.call("scontrol", "update", f"partition={PARTITION}", "hidden=yes")
    try:
        before = set(cluster.jobs("ALL"))
        project.make(*PROFILE, f"results/{SHIPS}.parquet")
    finally:
        cluster.call("scontrol", "update", f"partition={PARTITION}", "hidden=no")
    sent = [cluster.detail(job) for job in set(cluster.jobs("ALL")) - before]
    words = {(job["Partition"], job["Nice"], job.get("TresPerNode")) for job in sent}
    assert words == {(PARTITION, "7", "gres:gpu:a100:1"), (CPU_PARTITION, "0", None)}
    assert project.artefacts()[SHIPS] == local.artefacts()[SHIPS]
