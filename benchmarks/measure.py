"""Measure the time and memory of variants in turn, round by round, and in between what the device can do at best."""

import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from safetyheads.artifacts.parts import Parts


@dataclass(frozen=True)
class Variant:
    """A way to do the work.

    Slow variants do only a sample of it. `run(round)` does the sample of a round and returns what it found, `share` is
    the sample's share of the whole work, and `sample` describes it in words.
    """

    name: str
    run: Callable[[int], Any]
    share: float = 1.0
    sample: str = "all"
    dtype: torch.dtype = torch.float32


@dataclass
class Timing:
    """What was measured of a variant.

    `seconds` has each round's, scaled from the sample to the whole work. `memory` is how many bytes the memory in use
    rose in the first round, and `found` is what each round returned.
    """

    variant: Variant
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    found: list[Any] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds: seconds for the whole work."""
        return statistics.median(self.seconds)

    @property
    def peak_memory(self) -> int | None:
        """By how many bytes the memory in use rose in the first round; None where the system does not say."""
        return max(self.memory, default=None)


@dataclass
class Peaks:
    """What the device can do at best, measured again and again: operations per second by type of number, and bytes."""

    operations: dict[torch.dtype, list[float]]
    bytes: list[float] = field(default_factory=list)

    def measure(self, device: torch.device, edges: Sequence[int]) -> None:
        """Measure once more: the fastest product of two square matrices with one of these edges, and a large copy."""
        for dtype, rates in self.operations.items():
            rates.append(max(_product(device, dtype, edge) for edge in edges))
        self.bytes.append(_copy(device, 2**31 if device.type == "cuda" else edges[-1] ** 2 * 64))


def in_turn(
    variants: Sequence[Variant], peaks: Peaks, device: torch.device, edges: Sequence[int], rounds: int, limit: float
) -> list[Timing]:
    """Run every variant once in each round, and measure the device's peaks before each.

    Taking turns spreads what disturbs the machine over all variants. There are at most `rounds` rounds. After the
    first, a round begins only if it is expected to end within `limit` seconds.
    """
    timings = [Timing(variant) for variant in variants]
    start = time.perf_counter()
    for number in range(rounds):
        begin = time.perf_counter()
        for timing in timings:
            peaks.measure(device, edges)
            with nullcontext() if number else _memory(device, timing.memory):
                seconds, found = timed(device, partial(timing.variant.run, number))
            timing.seconds.append(seconds / timing.variant.share)
            timing.found.append(found)
        now = time.perf_counter()
        if now - start + (now - begin) > limit:
            break
    return timings


def timed(device: torch.device, run: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that `run` takes, with all that it starts on the device, and what it returns."""
    _synchronize(device)
    start = time.perf_counter()
    found = run()
    _synchronize(device)
    return time.perf_counter() - start, found


@contextmanager
def fresh_parts() -> Iterator[Parts]:
    """An empty folder of parts, so that nothing of an earlier run is used. It is deleted after the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Parts(Path(folder) / "benchmark")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _product(device: torch.device, dtype: torch.dtype, edge: int) -> float:
    """The operations per second of a product of two square matrices; the median of five measurements."""
    first, second = (torch.randn(edge, edge, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(first)
    repeats = min(100, max(1, 2**31 // edge**3)) if device.type == "cpu" else 10
    return 2 * edge**3 / _median(device, lambda: torch.mm(first, second, out=out), repeats)


def _copy(device: torch.device, size: int) -> float:
    """The bytes per second, read and written, of copying `size` bytes; the median of five measurements."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / _median(device, lambda: target.copy_(source), 1 if device.type == "cpu" else 10)


def _median(device: torch.device, run: Callable[[], Any], repeats: int) -> float:
    """The seconds of one `run`: the median of five measurements of `repeats` runs each, after a first run."""
    run()
    return statistics.median(timed(device, lambda: [run() for _ in range(repeats)])[0] for _ in range(5)) / repeats


@contextmanager
def _memory(device: torch.device, peaks: list[int]) -> Iterator[None]:
    """Append to `peaks` by how many bytes the memory in use rose within the block, if the system can tell."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # gives back what earlier variants freed, so that it counts when this one takes it again
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark of the resident set
    except OSError:
        yield
        return
    resident = _status("VmRSS")
    yield
    peaks.append(max(0, _status("VmHWM") - resident))


def _status(name: str) -> int:
    """The value of a line of /proc/self/status, such as VmRSS, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
