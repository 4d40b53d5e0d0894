"""Asking Slurm by its commands, and the file that says what it is asked for."""

import subprocess

from safetyheads.errors import SafetyHeadsError

SETTINGS = "profiles/slurm/config.yaml"


def works(*command: str) -> bool:
    """Whether one of Slurm's commands is there and succeeds within a minute."""
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def said(*command: str) -> str:
    """The output of one of Slurm's commands. Raises SafetyHeadsError if it fails or does not answer in a minute."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SafetyHeadsError(f"Slurm does not answer: {error}. Is this the cluster's login node?") from None
    if done.returncode != 0:
        said = done.stderr.strip()
        raise SafetyHeadsError(
            f"Slurm does not answer: `{' '.join(command)}` says {said!r}. Is this the cluster's login node?"
        )
    return done.stdout
