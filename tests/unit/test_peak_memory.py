"""What scoring and generation hold at a time: a batch and the kept inputs of a block, however many prompts there are."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import peak_memory
import pytest

SLACK = 2**22  # bytes: tables, rounding up to pages


@cache
def rise(what: str, prompts: int) -> int:
    """Bytes by which the memory of a process of its own rises."""
    script = Path(peak_memory.__file__)
    run = subprocess.run(
        [sys.executable, script, what, str(prompts)], capture_output=True, text=True, check=True, timeout=300
    )
    return int(run.stdout)


def kept_inputs() -> int:
    """Bytes of every layer's input, for the prompts of a block: as many as fill a batch with one layer's heads."""
    return 4 * peak_memory.LAYERS * peak_memory.HIDDEN * peak_memory.BUDGET // peak_memory.HEADS


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell peaks of memory")
@pytest.mark.parametrize(("what", "unit"), [("ships", "pass"), ("sahara", "pass"), ("completions", "cached")])
def test_the_peak_is_that_of_one_batch(what: str, unit: str) -> None:
    few, many = rise(what, 500), rise(what, 2000)
    print(what, few, many, rise(unit, 1), kept_inputs())
    assert few <= kept_inputs() + 1.5 * rise(unit, 1) + SLACK
    assert many <= 1.1 * few + SLACK
