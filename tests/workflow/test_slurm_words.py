"""The words of profiles/slurm, with the real Snakemake and its plugin, and scripts in place of Slurm's commands."""

import re
import shlex
from itertools import pairwise

import pytest
from project import Project

SBATCH = """#!/bin/sh
for word in "$@"; do case "$word" in --wrap=*) ;; *) printf "%s\\n" "$word" >> {calls}/$$;; esac; done
case "$1" in --test-only) exit 0;; esac
echo "no job is taken here" >&2
exit 1
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


@pytest.mark.parametrize("words", WORDS)
def test_jobs_are_sent_with_the_words_that_slurm_was_asked_about(words: str, project: Project) -> None:
    changes, with_gpu, without = WORDS[words]
    commands = project.folder / "bin"
    commands.mkdir()
    calls = project.folder / "calls"
    calls.mkdir()
    for name, script in {
        "sbatch": SBATCH.format(calls=shlex.quote(str(calls))),
        "sinfo": '#!/bin/sh\ncase "$*" in *%R*) echo "gpu|gpu:a100:8"; echo "cpu|";; *) echo "usual*";; esac\n',
        **dict.fromkeys(["scontrol", "squeue", "sacct"], "#!/bin/sh\n"),
        **dict.fromkeys(["sacctmgr", "sshare"], "#!/bin/sh\necho 2024-05\n"),
    }.items():
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    profile = project.folder / "profiles" / "slurm" / "config.yaml"
    text = profile.read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^  {name}: \S+", f"  {name}: {value!r}", text)
        assert count == 1, f"the profile has no word {name}"
    profile.write_text(text.replace("status-checks: 30", "status-checks: 1"))
    for artefact in ("ships", "verdicts"):
        for file in (project.results / artefact).rglob("*.parquet"):
            file.unlink()
    project.environment["PATH"] = f"{commands}:/usr/bin:/bin"
    result = project.run("--workflow-profile", "slurm", "--retries", "0", "attribution", "measure")
    assert "no job is taken here" in result.output, result.output[-3000:]
    made = [file.read_text().splitlines() for file in calls.iterdir()]
    asked = {frozenset(call[1:-1]) for call in made if call[0] == "--test-only"}
    assert asked == {frozenset(with_gpu), frozenset(without)}
    assert {frozenset(_words(call)) for call in made if call[0] != "--test-only"} == asked


def _words(call: list[str]) -> set[str]:
    """The words of a call of the plugin's that say where a job goes, in the form in which Slurm is asked."""
    short = {"-p": "--partition", "-A": "--account", "-C": "--constraint", "--clusters": "--clusters"}
    kept = ("--qos=", "--gpus", "--gres", "--licenses=", "--reservation=")
    paired = {f"{short[word]}={value}" for word, value in pairwise(call) if word in short}
    return paired | {word for word in call if word.startswith(kept)}
