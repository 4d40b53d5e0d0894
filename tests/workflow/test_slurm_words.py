"""The words of profiles/slurm, with the real Snakemake and its plugin, and scripts in place of Slurm's commands."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from project import Project

SBATCH = """for word in "$@"; do case "$word" in --wrap=*) ;; *) printf "%s\\n" "$word" >> {calls}/$$;; esac; done
case "$1" in --test-only) exit 0;; esac
"""

WORDS: dict[str, tuple[dict[str, str], set[str], set[str]]] = {
    # the profile's words, what jobs with a GPU are sent with, and all other jobs
    "as it is": ({}, {"--partition=gpu", "--gpus=a100:1"}, {"--partition=gpu"}),
    "a QOS says it all": (
        {"gpu_partition": "", "cpu_partition": "", "qos": "normal", "gpu_qos": "gpu-long", "gpu_model": ""},
        {"--partition=usual", "--qos=gpu-long", "--gpus=1"},
        {"--partition=usual", "--qos=normal"},
    ),
    "constraints, account, partitions": (
        {"gpu_partition": "gpu,cpu", "cpu_partition": "cpu", "gpu_constraint": "a100&80gb", "account": "2024-05"},
        {"--partition=gpu,cpu", "--constraint=a100&80gb", "--account=2024-05", "--gpus=a100:1"},
        {"--partition=cpu", "--account=2024-05"},
    ),
    "extra words": (
        {
            "extra": "--reservation=x",
            "gpu_extra": "--licenses=a@b:1 --gpus-per-node=a100-sxm4:1",
            "cluster": "far",
        },
        {"--partition=gpu", "--licenses=a@b:1", "--gpus-per-node=a100-sxm4:1", "--clusters=far"},
        {"--partition=gpu", "--reservation=x", "--clusters=far"},
    ),
    "gres": ({"gres": "gpu:a100:2"}, {"--partition=gpu", "--gres=gpu:a100:2"}, {"--partition=gpu"}),
}


def put_commands(project: Project, sbatch: str) -> Path:
    """Scripts in place of Slurm's commands. Returns a folder with a file for each call of sbatch: a word per line."""
    commands, calls = project.folder / "bin", project.folder / "calls"
    commands.mkdir()
    calls.mkdir()
    for name, script in {
        "sbatch": SBATCH.format(calls=shlex.quote(str(calls))) + sbatch,
        "sinfo": 'case "$*" in *%R*) echo "gpu|gpu:a100:8"; echo "cpu|";; *) echo "usual*";; esac',
        "scontrol": "",
        "squeue": "",
        "srun": 'while case "$1" in -*) true;; *) false;; esac; do shift; done; exec "$@"',  # its options have one word
        "sacct": f'case "$*" in *--name*) for call in {calls}/*; do echo "${{call##*/}}|COMPLETED"; done;; esac',
        **dict.fromkeys(["sacctmgr", "sshare"], "echo 2024-05"),
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    project.environment["PATH"] = f"{commands}:/usr/bin:/bin"
    project.edit("profiles/slurm/config.yaml", "status-checks: 30", "status-checks: 1")
    return calls


@pytest.mark.parametrize("words", WORDS)
def test_jobs_are_sent_with_the_words_that_slurm_was_asked_about(words: str, project: Project) -> None:
    changes, with_gpu, without = WORDS[words]
    calls = put_commands(project, 'echo "no job is taken here" >&2\nexit 1')
    profile = project.folder / "profiles" / "slurm" / "config.yaml"
    text = profile.read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^  {name}: \S+", f"  {name}: {value!r}", text)
        assert count == 1, f"the profile has no word {name}"
    profile.write_text(text)
    for artefact in ("ships", "verdicts"):
        for file in (project.results / artefact).rglob("*.parquet"):
            file.unlink()
    result = project.run("--workflow-profile", "slurm", "--retries", "0", "attribution", "measure")
    assert "no job is taken here" in result.output, result.output[-3000:]
    made = [file.read_text().splitlines() for file in calls.iterdir()]
    asked = {frozenset(call[1:-1]) for call in made if call[0] == "--test-only"}
    assert asked == {frozenset(with_gpu), frozenset(without)}
    assert {frozenset(_words(call)) for call in made if call[0] != "--test-only"} == asked


def test_a_job_of_slurm_gets_what_the_command_line_says_whatever_a_shell_would_make_of_it(project: Project) -> None:
    put_commands(project, 'for word in "$@"; do wrap=${word#--wrap=}; done\nsh -c "$wrap" >&2 || exit 1\necho $$')
    text = "templates={plainly: {text: 'Say $HOME {query}'}}"
    target = "prompts/tiny/neutral/plainly"
    project.make("--workflow-profile", "slurm", f"results/{target}.parquet", "--config", text, "compute={threads: 2}")
    assert all(made.startswith("Say $HOME ") for made in project.read(target)["text"])


def _words(call: list[str]) -> set[str]:
    """The words of a call of the plugin's that say where a job goes, in the form in which Slurm is asked."""
    short = {"-p": "--partition", "-A": "--account", "-C": "--constraint", "--clusters": "--clusters"}
    kept = ("--qos=", "--gpus", "--gres", "--licenses=", "--reservation=")
    paired = {f"{short[word]}={value}" for word, value in pairwise(call) if word in short}
    return paired | {word for word in call if word.startswith(kept)}
