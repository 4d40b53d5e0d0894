"""Checks before a run on a cluster: what they let pass, and what they say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.slurm_checks import (
    check_alone,
    check_jobs,
    check_partitions,
    check_profile,
    check_slurm,
    check_status,
    min_job_age,
    offered,
)
from safetyheads.jobs.slurm_requests import request

SINFO = """gpu|gpu:a100:8(S:0-3),gpu:h100:4
gpu|gpu:A100:4
cpu|(null)
untyped|gpu:8,nvme:1
"""


@pytest.fixture
def profiles(tmp_path: Path) -> list[Path]:
    for name in ("default", "slurm"):
        (tmp_path / "profiles" / name).mkdir(parents=True)
        (tmp_path / "profiles" / name / "config.yaml").touch()
    (tmp_path / "elsewhere").mkdir()
    return [tmp_path / "nothing", tmp_path / "profiles"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-n"],
        ["--workflow-profile", "slurm"],
        ["--workflow-profile=slurm", "--cores", "1"],
        ["--workflow-profile", "none"],
        ["--workflow-profile", "slurm/config.yaml"],
        ["results/slrum", "--profile", "slrum"],
        ["--workflow-profile"],
    ],
)
def test_a_profile_that_is_there_passes(arguments: list[str], profiles: list[Path]) -> None:
    check_profile(arguments, profiles)


def test_the_folder_of_a_profile_passes(profiles: list[Path], tmp_path: Path) -> None:
    check_profile(["--workflow-profile", str(tmp_path / "elsewhere")], profiles)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--workflow-profile", "slrum"],
        ["--workflow-profile=slrum"],
        ["--workflow-prof", "slrum", "-n"],
        ["--workflow-profile", "default", "--workflow-profile", "slrum"],
    ],
)
def test_a_mistyped_profile_is_named_with_those_there_are(arguments: list[str], profiles: list[Path]) -> None:
    with pytest.raises(
        SafetyHeadsError, match=r"'slrum'.*allowed: default, slurm.*Did you mean 'slurm'\?.*on this machine"
    ):
        check_profile(arguments, profiles)


def test_partitions_and_their_gpus_are_read() -> None:
    assert offered(SINFO) == {
        "gpu": {"gpu:a100:8", "gpu:h100:4", "gpu:A100:4"},
        "cpu": set(),
        "untyped": {"gpu:8"},
    }


@pytest.mark.parametrize(
    "wanted", [{}, {"gpu": ["a100"]}, {"gpu": ["A100"], "cpu": []}, {"untyped": []}, {"cpu": ["a100"]}, {"": ["a100"]}]
)
def test_partitions_that_have_what_is_wanted_pass(wanted: dict[str, list[str]]) -> None:
    """`cpu` tells nothing about GPUs: some clusters hide them."""
    check_partitions(wanted, offered(SINFO))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"gpuu": ["a100"]}, r"'gpuu'.*allowed: cpu \(no GPU\), gpu \(.*gpu:a100:8.*\), untyped.*Did you mean 'gpu'\?"),
        ({"gpu": ["v100"]}, r"'v100'.*'gpu'.*allowed: a100, h100"),
        ({"untyped": ["a100"]}, r"'a100'.*'untyped'.*allowed: \"\""),
    ],
)
def test_a_partition_without_what_is_wanted_is_named(wanted: dict[str, list[str]], said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        check_partitions(wanted, offered(SINFO))


def test_the_age_at_which_slurm_forgets_jobs_is_read() -> None:
    assert min_job_age("MinJobAge               = 300 sec\nMaxArraySize = 1001") == 300
    assert min_job_age("MaxArraySize = 1001") is None


@pytest.mark.parametrize(
    ("command", "sacct", "age", "seconds"),
    [("sacct", True, 2, 40), ("squeue", True, 2, 40), ("squeue", False, 120, 40), ("squeue", False, None, 40)],
)
def test_a_cluster_that_tells_the_end_of_jobs_passes(command: str, sacct: bool, age: int | None, seconds: int) -> None:
    check_status(command, sacct=sacct, min_job_age=age, seconds=seconds)


@pytest.mark.parametrize(
    ("command", "age", "said"),
    [("sacct", 300, "`status: sacct`.*wait for ever.*squeue"), ("squeue", 119, "status-checks: 40.*119.*at most 39")],
)
def test_a_cluster_that_would_not_tell_the_end_of_jobs_is_refused(command: str, age: int, said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        check_status(command, sacct=False, min_job_age=age, seconds=40)


def test_live_jobs_of_this_folder_are_named_and_others_are_not() -> None:
    folder = Path("/project/mine")
    others = "7|/project/other|rule_ships\n8|/project/mine|(null)\n9|/project/mine|\n"
    check_alone(folder, others)
    with pytest.raises(SafetyHeadsError, match=r"`scancel 12 13`") as error:
        check_alone(
            folder,
            others
            + "12|/project/mine|rule_ships_wildcards_a|b\n12|/project/mine|rule_ships\n13|/project/mine|rule_rates\n",
        )
    assert "7" not in str(error.value)


def test_a_machine_without_slurm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SafetyHeadsError, match="login node"):
        check_slurm({}, status_command="sacct", seconds_before_status=40, folder=tmp_path)


@pytest.fixture
def login_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Slurm's commands as scripts, alone in PATH: partition `secret` is hidden, accounting answers."""
    folder = tmp_path / "bin"
    folder.mkdir()
    show(
        folder,
        "sinfo",
        'case "$*" in *%P*) echo "cpu*"; exit;; *--all*) echo "secret|gpu:a100:4";; esac',
        'echo "cpu|(null)"',
    )
    show(
        folder,
        "scontrol",
        'case "$*" in *--all*partition*) echo "PartitionName=secret TRES=cpu=4,gres/gpu:a100=4";; esac',
    )
    show(
        folder,
        "sbatch",
        f'echo "$@" >> {tmp_path}/asked',
        'case "$*" in *wrong*) echo "Invalid qos specification" >&2; exit 1;; esac',
    )
    show(folder, "sacct")
    show(folder, "squeue")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def show(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


def check(wanted: dict[str, set[str]], *jobs: dict[str, Any], status: str = "sacct", cluster: str = "") -> None:
    check_slurm(
        wanted,
        status_command=status,
        seconds_before_status=30,
        folder=Path.cwd(),
        requests=[request(job) for job in jobs],
        cluster=cluster,
    )


def test_a_hidden_partition_passes(login_node: Path) -> None:
    check({"secret": {"a100"}}, {"slurm_partition": "secret", "gpu": 1, "gpu_model": "a100"})


def test_a_hidden_partition_passes_without_sinfo(login_node: Path) -> None:
    (login_node / "sinfo").unlink()
    check({"secret": {"a100"}})
    with pytest.raises(SafetyHeadsError, match=r"'secrt'.*secret \(gpu:a100:1\).*Did you mean 'secret'"):
        check({"secrt": set()})


def test_each_kind_of_job_is_checked_once_by_its_resources(
    login_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNAKEMAKE_SLURM_PARTITIONS", raising=False)
    settings = SimpleNamespace(partition_config=None, status_command="sacct", init_seconds_before_status_checks=30)
    one = {"slurm_partition": "secret", "gpu": 1, "gpu_model": "a100"}
    check_jobs([one, one, {"qos": "gpu"}], settings, tmp_path)
    asked = sorted((tmp_path / "asked").read_text().splitlines())
    assert len(asked) == 2 and "--qos=gpu" in asked[0] and "--partition=secret" in asked[1]
    with pytest.raises(SafetyHeadsError, match="'secrt'.*Did you mean 'secret'"):
        check_jobs([one | {"slurm_partition": "secret,secrt"}], settings, tmp_path)
    settings.partition_config = "partitions.yaml"  # the plugin chooses a partition where none is given
    check_jobs([{"qos": "wrong"}], settings, tmp_path)
    with pytest.raises(SafetyHeadsError, match="qos"):
        check_jobs([one | {"qos": "wrong"}], settings, tmp_path)


def test_no_partition_passes_and_slurm_is_asked_as_the_plugin_sends_it(login_node: Path, tmp_path: Path) -> None:
    check({"": {"a100"}}, {"qos": "gpu", "gpu": 1, "gpu_model": "a100"})
    asked = (tmp_path / "asked").read_text()
    assert asked == "--test-only --partition=cpu --qos=gpu --gpus=a100:1 --ntasks=1 --wrap=true\n"


def test_no_partition_without_sinfo_is_refused_because_the_plugin_would_fail_at_each_job(login_node: Path) -> None:
    (login_node / "sinfo").unlink()
    with pytest.raises(SafetyHeadsError, match="found no partition, but sinfo.*Set gpu_partition"):
        check({"": set()})


def test_what_slurm_refuses_for_good_stops_the_run_and_nodes_that_are_down_do_not(login_node: Path) -> None:
    with pytest.raises(SafetyHeadsError, match=r"refuses jobs with .*--qos=wrong.*Invalid qos.*Set qos and gpu_qos"):
        check({}, {"slurm_partition": "cpu", "qos": "wrong"})
    show(login_node, "sbatch", 'echo "allocation failure: Requested node configuration is not available" >&2; exit 1')
    check({}, {"slurm_partition": "cpu"})


def test_another_cluster_is_asked_and_needs_accounting(login_node: Path, tmp_path: Path) -> None:
    show(
        login_node,
        "sinfo",
        'case "$*" in *--clusters=far*) echo "CLUSTER: far"; echo "gpu|gpu:4";; *) echo "cpu|";; esac',
    )
    check({"gpu": set()}, {"slurm_partition": "gpu", "clusters": "far"}, cluster="far")
    assert "--clusters=far" in (tmp_path / "asked").read_text()
    with pytest.raises(SafetyHeadsError, match=r"status: squeue.*cluster: far.*allowed: sacct"):
        check({"gpu": set()}, cluster="far", status="squeue")


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"gpu_model": "a100-sxm4-80gb"}, 'gpu_model to "" and gpu_extra to "--gpus-per-node=a100-sxm4-80gb:1"'),
        ({"gres": "gpu:a100-sxm:2"}, 'gres to "" and gpu_extra to "--gpus-per-node=a100-sxm:2"'),
        ({"gres": "gpu:a100:1,scratch:1"}, "found gres"),
        ({"slurm_extra": "--nice=1 --qos=x"}, "found --qos among extra words.*allowed: qos and gpu_qos"),
        ({"slurm_extra": "-pgpu"}, "found -pgpu among extra words.*gpu_partition and cpu_partition"),
        ({"slurm_extra": "--gres gpu:1"}, "found --gres.*allowed: gres, or --gpus-per-node"),
    ],
)
def test_what_the_plugin_would_refuse_at_each_job_is_told_before(job: dict[str, Any], said: str) -> None:
    with pytest.raises(SafetyHeadsError, match=said):
        request(job)
