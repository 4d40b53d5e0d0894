"""Show what a benchmark found: a table for people, a line of JSON for programs, and a file for the README."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from measure import Peaks, Timing
from options import RESULTS as RESULTS  # the folder of outcomes; others import it from here
from options import device_name, dtype_name

COLUMNS = {
    "variant": "variant",
    "sample": "sample",
    "seconds": "seconds",
    "ratio": "x reference",
    "operations": "min. TFLOP",
    "bytes": "min. GB",
    "output_tokens_per_second": "output tokens/s",
    "fraction_of_product_peak": "% of product peak",
    "fraction_of_copy_peak": "% of copy peak",
    "peak_memory": "peak memory MB",
    "largest_difference": "largest difference",
}
_SCALES = {"operations": 1e12, "bytes": 1e9, "peak_memory": 1e6, "fraction_of_product_peak": 0.01}
_SCALES["fraction_of_copy_peak"] = 0.01


@dataclass(frozen=True)
class Work:
    """The least operations and bytes that a task needs, and the seconds that the reference algorithm takes for it."""

    operations: int
    bytes: int
    reference_seconds: float


def row(timing: Timing, work: Work, peaks: Peaks, **more: Any) -> dict[str, Any]:
    """The figures of one variant, in seconds, operations and bytes. `more` are further figures.

    `ratio` is the speed as a multiple of the reference algorithm's. The fractions are the least work per
    second of the variant's time, as shares of the device's measured peaks (their medians).
    """
    product = statistics.median(peaks.operations[timing.variant.dtype])
    return {
        "variant": timing.variant.name,
        "dtype": dtype_name(timing.variant.dtype),
        "sample": timing.variant.sample,
        "seconds": timing.median,
        "rounds": timing.seconds,
        "ratio": work.reference_seconds / timing.median,
        "operations": work.operations,
        "bytes": work.bytes,
        "fraction_of_product_peak": work.operations / timing.median / product,
        "fraction_of_copy_peak": work.bytes / timing.median / statistics.median(peaks.bytes),
        "peak_memory": timing.peak_memory,
        **more,
    }


def outcome(
    benchmark: str, size: str, device: torch.device, peaks: Peaks, rows: Sequence[Mapping[str, Any]], **more: Any
) -> dict[str, Any]:
    """Everything that a run found, as one JSON object. `more` are further entries.

    `ratios` and `fractions` repeat figures of the variants (not of the reference), so that they are easy to find.
    """
    others = [row for row in rows if row["variant"] != "reference"]
    return {
        "benchmark": benchmark,
        "size": size,
        "device": device_name(device),
        "versions": versions(),
        "ratios": {row["variant"]: row["ratio"] for row in others},
        "fractions": {row["variant"]: row["fraction_of_product_peak"] for row in others},
        "peak": {
            "operations_per_second": {
                dtype_name(dtype): statistics.median(rates) for dtype, rates in peaks.operations.items()
            },
            "bytes_per_second": statistics.median(peaks.bytes),
        },
        **more,
        "variants": list(rows),
    }


def versions() -> dict[str, str]:
    """The versions of the libraries that the numbers depend on."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def publish(found: Mapping[str, Any], save: Path | None) -> None:
    """Print the table and, as the last line, the JSON. If `save` is a folder, the JSON is also kept there."""
    peak = found["peak"]
    rates = ", ".join(f"{rate / 1e12:.3g} TFLOP/s {name}" for name, rate in peak["operations_per_second"].items())
    print(f"{found['benchmark']} {found['size']}: {found['device']}, {found['task']}")
    print(f"peak: {rates}, {peak['bytes_per_second'] / 1e9:.3g} GB/s copied (read + written)")
    columns = {key: title for key, title in COLUMNS.items() if any(key in row for row in found["variants"])}
    print_table(
        list(columns.values()),
        [[_text(key, row.get(key)) for key in columns] for row in found["variants"]],
    )
    print(f"agreement: {json.dumps(found['agreement'])}")
    keep(found, save)


def keep(found: Mapping[str, Any], save: Path | None) -> None:
    """Print the JSON as the last line. If `save` is a folder, also write it there, named after benchmark and device."""
    if save:
        save.mkdir(parents=True, exist_ok=True)
        path = save / f"{found['benchmark']}-{found['size']}-{slug(found['device'])}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(titles, *rows)]
    for line in (titles, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")


def slug(name: str) -> str:
    """A name for files: `amd-epyc-2-threads` for `AMD EPYC, 2 threads`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value / _SCALES.get(key, 1):.3g}"
