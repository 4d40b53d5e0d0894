"""Run all benchmarks on a GPU within a time limit, the most important ones first, each in a process of its own.

    benchmarks/gpu.sh                                                 # 480 seconds, the shape of Llama-2-7B
    PYTHONPATH=workflow python benchmarks/gpu.py --size tiny --seconds 120

The outcome of each step is written as JSON into the folder --out when the step ends. If a step fails or takes too long,
the others still run, and the exit status is 1. A table of all steps is printed at the end, and kept as gpu-DEVICE.md
and gpu-DEVICE.json.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
SIZES = ("tiny", "bench", "llama-2-7b")  # repeated from sizes.py, because importing that would import torch
MARGIN = 2.0  # a step may take this many times its share of the time, at the cost of the less important steps after it
START = 25.0  # seconds that a step may take besides for imports and the model; its own time limit does not count them


class Step(NamedTuple):
    """A command whose last line of output is a JSON object. `share` weighs how much of the time it may take."""

    name: str
    command: Sequence[str]
    share: float
    timed: bool = False
    """Whether the command measures in rounds, and so takes the option --limit."""


def steps(size: str) -> list[Step]:
    """All steps, the most important ones first. Their shares are seconds if there are 480 in all."""
    fewer = ("--head-sets", "256") if size == "llama-2-7b" else ()
    return [
        Step("correctness, small", ("correctness.py", "--size", "tiny"), 35),
        Step("correctness, two layers", ("correctness.py", "--size", size, "--layers", "2"), 60),
        Step("noise", ("correctness.py", "--size", size, "--noise", "--dtype", "bfloat16"), 55),
        Step("scoring", ("scoring.py", "--size", size, "--methods", "ships"), 75, timed=True),
        Step("generation", ("generation.py", "--size", size, *fewer), 110, timed=True),
        Step("throughput", ("throughput.py", "--size", size), 65, timed=True),
        Step("sahara", ("scoring.py", "--size", size, "--methods", "sahara", "--rounds", "1"), 80, timed=True),
    ]


def run(step: Step, share: float, limit: float, more: Sequence[str]) -> dict[str, Any]:
    """Run a step for at most `limit` seconds. A step with `timed` is told to measure for `share` seconds.

    Returns its status, its duration in seconds and the outcome that it found, and the end of its stderr if it failed.
    """
    script, *arguments = step.command
    told = ["--limit", f"{max(1.0, share - START):.0f}"] if step.timed else []
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments, *told, *more],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    status = "ok"
    try:
        said, complaint = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, complaint = process.communicate()
        status = f"stopped after {limit:.0f} seconds"
    found = outcome(said)
    if status == "ok" and (process.returncode or found is None):
        status = f"failed: {last_words(complaint) or f'exit status {process.returncode}'}"
    result = {"step": step.name, "status": status, "seconds": round(time.monotonic() - began, 1), "found": found}
    return result if status == "ok" else {**result, "stderr": complaint[-3000:]}


def outcome(said: str) -> dict[str, Any] | None:
    """The JSON object in the last line of a step's output; None if there is none."""
    try:
        found = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def last_words(complaint: str) -> str:
    """The last line of a step's stderr that is not blank, cut to 200 characters; empty if there is none."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def run_all(chosen: Sequence[Step], seconds: float, more: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Run the steps in turn for `seconds` in all. Returns the result of each.

    If a step takes less than its share of the time, those that follow have more. All results so far are written to
    `out` after each step.
    """
    end = time.monotonic() + seconds
    results: list[dict[str, Any]] = []
    for index, step in enumerate(chosen):
        left = end - time.monotonic()
        share = left * step.share / sum(later.share for later in chosen[index:])
        limit = min(left, START + MARGIN * share) if index < len(chosen) - 1 else left
        if limit < 1:
            results.append({"step": step.name, "status": "left out: no time", "seconds": 0.0, "found": None})
        else:
            results.append(run(step, share, limit, more))
        print(f"{step.name}: {results[-1]['status']}, {results[-1]['seconds']} s", flush=True)
        keep(results, out)
    return results


def keep(results: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write the results to gpu-DEVICE.json and their table to gpu-DEVICE.md."""
    name = f"gpu-{slug(device(results))}"
    (out / f"{name}.json").write_text(json.dumps(list(results), indent=1) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(summary(results) + "\n", encoding="utf-8")


def device(results: Sequence[Mapping[str, Any]]) -> str:
    """The name of the device, from the first step that has an outcome; `unknown` if none has."""
    return next((str(result["found"]["device"]) for result in results if result["found"]), "unknown")


def slug(name: str) -> str:
    """A name for files: `nvidia-h100` for `NVIDIA H100`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table with a row for each step, and one for each variant of a step that measures time."""
    versions = next((result["found"]["versions"] for result in results if result["found"]), {})
    head = ", ".join([device(results), *(f"{name} {version}" for name, version in versions.items())])
    lines = [head, "", "| step | status | seconds | found |", "|---|---|---|---|"]
    for result in results:
        first, *others = told(result["found"]) or [""]
        lines.append(f"| {result['step']} | {result['status']} | {result['seconds']} | {first} |".replace("\n", " "))
        lines += [f"| | | | {other} |" for other in others]
    return "\n".join(lines)


def told(found: Mapping[str, Any] | None) -> list[str]:
    """What a step found, in a few short lines."""
    if found is None:
        return []
    if "variants" in found:
        return [found["task"], *map(_variant, found["variants"])]
    if "holds" in found:
        return [f"{name}: {'yes' if holds else 'NO'}" for name, holds in found["holds"].items()] + [
            f"scores differ by {found['scores']['largest_difference']:.2g} at most; median score "
            f"{found['scores']['median_score']:.2g}",
            *(
                f"{name}: {tokens['rows_different']} of {tokens['rows_compared']} rows differ"
                for name, tokens in found["tokens"].items()
            ),
        ]
    logits, scores, texts = found["logits"], found["scores"], found["texts"]
    return [
        *(
            f"logits, {name}: differ by {of['largest_difference']:.2g} at most, {of['mean_difference']:.2g} on average "
            f"(standard deviation {logits['standard_deviation']:.2g}); {of['best_token_differs']} of {of['of']} tokens"
            for name, of in logits.items()
            if isinstance(of, dict)
        ),
        f"scores: differ by {scores['largest_difference']:.2g} at most (median {scores['median_score']:.2g}), rank "
        f"correlation {scores['rank_correlation']:.4f}",
        f"texts: {texts['different']} of {texts['compared']} differ within {texts['new_tokens']} tokens",
    ]


def _variant(row: Mapping[str, Any]) -> str:
    more = [
        f"{row['seconds']:.3g} s",
        f"{row['ratio']:.3g} x the first",
        f"{row['fraction_of_product_peak']:.1%} of peak",
    ]
    if "output_tokens_per_second" in row:
        more.append(f"{row['output_tokens_per_second']:,.0f} output tokens/s")
    return f"{row['variant']}: " + ", ".join(more)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", choices=SIZES, default="llama-2-7b", help="default: %(default)s")
    options.add_argument("--seconds", type=float, default=480.0, help="for everything; default: %(default)g")
    options.add_argument("--out", type=Path, default=HERE / "results", help="a folder; default: benchmarks/results")
    names = [step.name for step in steps("tiny")]
    options.add_argument("--steps", choices=names, nargs="+", metavar="STEP", help=f"some of: {'; '.join(names)}")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if any")
    options.add_argument("--threads", type=int, help="of the CPU; default: all cores")
    arguments = options.parse_args()
    if not arguments.seconds > 0:
        options.error(f"--seconds: found {arguments.seconds:g}; allowed: a number of seconds above 0")
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # caches that grow leave no gaps
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    chosen = [step for step in steps(arguments.size) if step.name in (arguments.steps or names)]
    more = ["--device", arguments.device, "--save", str(out)]
    more += ["--threads", str(arguments.threads)] if arguments.threads else []
    results = run_all(chosen, arguments.seconds, more, out)
    print("\n" + summary(results))
    sys.exit(any(result["status"] != "ok" for result in results))


if __name__ == "__main__":
    main()
