"""Make the README's picture and table of speeds from the outcomes in benchmarks/results.

Writes results/speed.svg and prints the table as Markdown:

    python benchmarks/chart.py
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"
TITLES = ["work", "device", "variant", "seconds", "x reference", "% of peak", "peak memory"]
_COLOURS = {"reference": "#8c8c8c", "partial": "#1f6f8b", "sahara": "#1f6f8b", "packed": "#1f6f8b"}
_OTHER = "#b8c4c9"


def read() -> list[dict[str, Any]]:
    """All saved outcomes, those of scoring before those of generation, and small sizes before large ones."""
    paths = [path for kind in ("generation", "scoring") for path in sorted(RESULTS.glob(f"{kind}-*.json"))]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return sorted(found, key=lambda run: (run["benchmark"] != "scoring", run["variants"][0]["operations"]))


def cells(run: Mapping[str, Any], variant: Mapping[str, Any]) -> list[str]:
    """The cells of one line of the table: a variant of a run."""
    memory = variant["peak_memory"]
    return [
        f"{run['benchmark']}, {run['size']}",
        run["device"],
        variant["variant"],
        f"{variant['seconds']:,.4g}" if variant["seconds"] < 1e4 else f"{variant['seconds']:,.0f}",
        f"{variant['ratio']:.3g}",
        f"{variant['fraction_of_product_peak']:.0%}",
        "-" if memory is None else f"{memory / 1e6:,.0f} MB",
    ]


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The table of all variants of all runs, as Markdown."""
    lines = [TITLES, ["---"] * len(TITLES)]
    lines += [cells(run, variant) for run in runs for variant in run["variants"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the speeds as multiples of the reference algorithm's, with a panel for each run and one logarithmic axis."""
    matplotlib.rcParams.update({"svg.hashsalt": "safetyheads", "svg.fonttype": "none", "font.size": 9})
    heights = [len(run["variants"]) for run in runs]
    figure, panels = pyplot.subplots(
        len(runs),
        1,
        sharex=True,
        squeeze=False,
        figsize=(8, 0.6 + 0.55 * len(runs) + 0.3 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
    )
    for run, axes in zip(runs, panels[:, 0]):
        variants = run["variants"]
        ratios = [variant["ratio"] for variant in variants]
        colours = [_COLOURS.get(variant["variant"], _OTHER) for variant in variants]
        bars = axes.barh([variant["variant"] for variant in variants], ratios, color=colours)
        labels = [
            f"{variant['ratio']:.3g} x, {variant['fraction_of_product_peak']:.0%} of peak" for variant in variants
        ]
        axes.bar_label(bars, labels, padding=4)
        axes.set_title(f"{run['benchmark']}, {run['size']}: {run['device']}", loc="left", fontsize=9)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    every = [variant["ratio"] for run in runs for variant in run["variants"]]
    panels[-1, 0].set_xlim(min(0.5, *every), 5 * max(every))
    panels[-1, 0].xaxis.set_major_formatter("{x:g}")
    panels[-1, 0].set_xlabel("speed, as a multiple of the reference algorithm's")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    runs = read()
    if not runs:
        raise SystemExit(f"{RESULTS} holds no outcomes: run scoring.py and generation.py with --save first.")
    draw(runs, RESULTS / "speed.svg")
    print(table(runs))


if __name__ == "__main__":
    main()
