"""Run the completions of plan `single` in 1, 2, 4 and 8 jobs: is the work shared evenly, and was the estimate right?

This runs the pipeline itself, with a model of random weights, on this machine or through Slurm. Two estimates are
compared with the time that the jobs took. The first is the one that Snakemake prints by default. The second is
calibrated by `compute: speed`: its speed is taken from the run of one job, and its overhead of each job from the run of
the most jobs. So it fits these two runs by definition, and the runs in between test it.

64 jobs need a larger study than this one, so they are simulated: the batches of a study of 1,024 heads, 512 prompts and
128 new tokens are dealt to them as they would be, and their tokens are counted.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from benchmark_outcome import RESULTS, print_table, slug
from options import count, device_name
from transformers import LlamaConfig, LlamaForCausalLM

from safetyheads.artifacts import files
from safetyheads.config.load import Config, load_config
from safetyheads.config.sections import Compute
from safetyheads.costs.job_costs import Estimates
from safetyheads.engine.batches import padded

ROOT = Path(__file__).parents[1]
CELL = "completions/random/requests/direct/undifferentiated/single/greedy"
LAYERS, HEADS, WIDTH, NEW_TOKENS, BUDGET = 4, 8, 256, 32, 1536
SIMULATED, SIMULATED_PROMPTS, SIMULATED_HEADS = 64, 512, 32 * 32


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shards", type=count, nargs="+", default=[1, 2, 4, 8], help="default: 1 2 4 8")
    options.add_argument("--prompts", type=count, default=64, help="more take longer; default: %(default)s")
    options.add_argument("--save", action="store_true", help="keep the outcome in benchmarks/results")
    options.add_argument(
        "--snakemake",
        default="--cores 1",
        help="how jobs run, such as '--workflow-profile slurm'; default: '%(default)s'",
    )
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, given.prompts)
        runs = [run(folder, shards, given.snakemake.split()) for shards in sorted({1, *given.shards})]
        publish(folder, runs, given.save)


def make_project(folder: Path, prompts: int) -> None:
    """Write a model of random weights and a data set of so many prompts, of 5 to 11 words, into a folder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=1024, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(ROOT / "tests" / "data" / "tiny_a" / file, folder / "model")
    chance = np.random.default_rng(0)
    words = ["the", "of", "a", "plain", "question", "about", "some", "thing"]
    lines = [" ".join(chance.choice(words, size=chance.integers(5, 12))) for _ in range(prompts)]
    (folder / "requests.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def settings(shards: int, **speed: float | str) -> dict[str, Any]:
    """The configuration of a run with so many shards. `speed` are settings of `compute: speed`."""
    return {
        "results": f"results-{shards}",
        "models": {"random": {"path": "model", "dtype": "float32"}},
        "datasets": {"requests": {"path": "requests.txt"}},
        "decodings": {"greedy": {"max_new_tokens": NEW_TOKENS}},
        "compute": {"token_budget": BUDGET, "shards": shards, "device": "cpu", "speed": {"device": "cpu", **speed}},
        "studies": {
            "main": {
                "models": ["random"], "datasets": ["requests"], "templates": ["direct"], "plans": ["single"],
                "ablations": ["undifferentiated"], "decodings": ["greedy"], "judges": ["paper"],
            }
        },
    }  # fmt: skip


def run(folder: Path, shards: int, how: Sequence[str]) -> dict[str, Any]:
    """Make the completions in so many jobs. `how` are Snakemake's arguments on how to run them.

    Returns the seconds of each job and of the whole run, without the time for the prompts, and a hash of the
    completions.
    """
    (folder / "study.yaml").write_text(yaml.safe_dump(settings(shards)), encoding="utf-8")
    results = folder / f"results-{shards}"
    snakemake(folder, [*how, f"results-{shards}/prompts/random/requests/direct.parquet"])
    began = time.monotonic()
    snakemake(folder, [*how, f"results-{shards}/{CELL}.parquet"])
    wall = time.monotonic() - began
    timings = sorted((results / "benchmarks" / CELL).parent.glob("greedy*.jsonl"))
    return {
        "shards": shards,
        "seconds": [json.loads(file.read_text().splitlines()[-1])["s"] for file in timings],
        "wall": wall,
        "sha256": files.digest(files.read(results / f"{CELL}.parquet")),
    }


def snakemake(folder: Path, arguments: Sequence[str]) -> None:
    """Run the pipeline in a folder with these arguments. If it fails, end the program with what it said."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    done = subprocess.run(
        [*command, *arguments, "--configfile", "study.yaml"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])


def publish(folder: Path, runs: Sequence[dict[str, Any]], save: bool) -> None:
    """Print the table of all runs, the first of which has one job, and keep the outcome if `save` is true."""
    alone, most = runs[0], runs[-1]
    overhead = (sum(most["seconds"]) - sum(alone["seconds"])) / (most["shards"] - 1) if most is not alone else 0.0
    plain = load_config(settings(1), folder)
    calibrated = calibrate(folder, alone["seconds"][0], overhead)
    prompts = files.read(folder / "results-1/prompts/random/requests/direct.parquet", ["token_ids"])["token_ids"]
    rows = []
    for each in runs:
        shards, seconds = each["shards"], each["seconds"]
        dealt = largest(prompts, LAYERS * HEADS, NEW_TOKENS, BUDGET, shards)
        each |= {"overhead": overhead, "balance": max(seconds) / (sum(seconds) / shards) - 1, "dealt": dealt}
        for name, config in (("estimate", plain), ("calibrated", calibrated)):
            each[name] = estimated(config, folder, shards)
            each[f"error of {name}"] = each[name] / sum(seconds) - 1
        rows.append(
            [str(shards), f"{sum(seconds):.1f}", f"{max(seconds):.1f}", f"{each['balance']:.1%}", f"{dealt:.1%}",
             f"{overhead:.1f}",
             *(f"{each[name]:.1f} ({each[f'error of {name}']:+.0%})" for name in ("estimate", "calibrated")),
             f"{each['wall']:.1f}"]
        )  # fmt: skip
    print_table(
        ["jobs", "seconds of all", "of the longest", "above the mean", "in tokens", "overhead of each",
         "estimate of all", "calibrated", "whole run, seconds"], rows,
    )  # fmt: skip
    torch.set_num_threads(1)  # as the jobs do; the device's name has this number
    device = device_name(torch.device("cpu"))
    repeated = list(islice(cycle(prompts), SIMULATED_PROMPTS))
    simulated = largest(repeated, SIMULATED_HEADS, 128, Compute().token_budget, SIMULATED)
    print(f"{SIMULATED} jobs, simulated: the largest has {simulated:.1%} more tokens than the mean")
    print("files are the same: " + ("yes" if len({each["sha256"] for each in runs}) == 1 else "NO"))
    found = {
        "benchmark": "shards",
        "device": device,
        "runs": list(runs),
        "simulated": {"jobs": SIMULATED, "dealt": simulated},
    }
    if save:
        (RESULTS / f"shards-{slug(device)}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


def estimated(config: Config, folder: Path, shards: int) -> float:
    """The estimated seconds of all jobs together."""
    job = Estimates(config, folder, gpu=False).completions(*keys(), shards=shards)
    if job is None:
        raise ValueError("the benchmark's own model and data are always known")
    return shards * job.seconds


def keys() -> tuple[str, str, str, str, str]:
    """The keys of the measured cell that an estimate needs: model, data set, template, plan and decoding."""
    model, dataset, template, _, plan, decoding = CELL.split("/")[1:]
    return model, dataset, template, plan, decoding


def calibrate(folder: Path, seconds: float, overhead: float) -> Config:
    """The configuration whose estimate fits the run of one job, which took `seconds`, of which `overhead` is its start.

    The speed is work / time. The work follows from an estimate too: at a speed of one tera-operation per second and
    with no time to start, the estimated seconds are the number of tera-operations.
    """
    work = estimated(load_config(settings(1, generation=1.0, start=1e-9), folder), folder, 1)
    rate = work / max(1e-9, seconds - overhead)
    return load_config(settings(1, generation=rate, start=max(0.1, overhead)), folder)


def largest(prompts: Iterable[Sequence[int]], head_sets: int, new_tokens: int, budget: int, shards: int) -> float:
    """The share by which the largest of so many jobs has more tokens than their mean."""
    rows = [list(ids) for ids in prompts for _ in range(head_sets)]
    batches = padded(rows, new_tokens, budget)
    tokens = [len(batch) * (max(len(rows[row]) for row in batch) + new_tokens) for batch in batches]
    dealt = [sum(tokens[shard::shards]) for shard in range(shards)]
    return max(dealt) / (sum(dealt) / shards) - 1


if __name__ == "__main__":
    main()
