"""Compare scores in 16-bit numbers and in TF32 with those in float32: do they rank heads alike?

    PYTHONPATH=workflow python benchmarks/dtypes.py --size llama-2-7b --layers 4
    PYTHONPATH=workflow python benchmarks/dtypes.py --model results/models/demo \\
        --prompts results/prompts/demo/demo_harmful/simple.parquet

Prints a Markdown table. A --size is a model of random weights, and a --model is the folder of a model. --prompts are
files that the pipeline made, one for each --model, in the same order. Without them, prompts are random tokens.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmark_outcome import print_table
from measure import fresh_parts
from options import DTYPES, count, device_name, device_of, parser
from scipy.stats import spearmanr
from sizes import ABLATION, SIZES, Size, make_model, make_prompts, ready
from transformers import PreTrainedModel

from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.ships import ships
from safetyheads.errors import SafetyHeadsError

TOP = 10  # how many of the best heads are compared
_TITLES = ["model", "numbers", "score", "Spearman", f"top-{TOP} overlap", "largest difference", "largest score"]


def scores(model: PreTrainedModel, prompts: pd.DataFrame, token_budget: int) -> dict[str, np.ndarray]:
    """The scores of all heads, by kind, as arrays (lists, heads).

    Ships has a list for each prompt. The mean of Ships over prompts and Sahara's first step are one list each.
    """
    with fresh_parts() as parts:
        found = ships(model, prompts, ABLATION, token_budget=token_budget, parts=parts)["score"].to_numpy()
    of_prompts = found.reshape(len(prompts), -1)
    with fresh_parts() as parts:
        step = sahara(
            *(model, prompts, ABLATION),
            steps=1,
            rank=1,
            representation="final_norm",
            token_budget=token_budget,
            parts=parts,
        )["score"].to_numpy()
    return {
        "Ships, each prompt": of_prompts,
        "Ships, mean": of_prompts.mean(axis=0)[None],
        "Sahara, step 1": step[None],
    }


def compared(found: np.ndarray, expected: np.ndarray) -> tuple[float, float, float]:
    """How two arrays of scores (lists, heads) compare.

    Returns Spearman's rank correlation and the share of the `TOP` best heads that are the same, both as means over
    lists, and the largest difference of any score.
    """
    correlation = [spearmanr(ours, theirs).statistic for ours, theirs in zip(found, expected)]
    overlap = [len(_best(ours) & _best(theirs)) / len(_best(ours)) for ours, theirs in zip(found, expected)]
    return float(np.mean(correlation)), float(np.mean(overlap)), float(np.abs(found - expected).max())


def _best(of_heads: np.ndarray) -> set[int]:
    return set(np.argsort(-of_heads, kind="stable")[:TOP].tolist())


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Decide whether matrix products of float32 round their inputs to TF32 within the block. Only GPUs can."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def table(
    name: str, load: Callable[[str], PreTrainedModel], prompts: pd.DataFrame, numbers: list[str], token_budget: int
) -> list[list[str]]:
    """The rows of the table for one model. `load` returns the model in the type of number that it is asked for."""
    with tf32(False):
        expected = scores(load("float32"), prompts, token_budget)
    rows = []
    for kind in numbers:
        with tf32(kind == "tf32"):
            found = scores(load("float32" if kind == "tf32" else kind), prompts, token_budget)
        for score, values in found.items():
            correlation, overlap, difference = compared(values, expected[score])
            figures = [f"{correlation:.4f}", f"{overlap:.0%}", f"{difference:.2g}", f"{expected[score].max():.2g}"]
            rows.append([name, kind, score, *figures])
    return rows


def from_folder(folder: Path, device: torch.device) -> Callable[[str], PreTrainedModel]:
    """A function that loads the model in a folder in a type of number, as the pipeline does."""
    from safetyheads.models.load import load

    return lambda kind: load(folder, dtype=kind, device=str(device))


def random_weights(size: Size, device: torch.device) -> Callable[[str], PreTrainedModel]:
    """A function that returns a model in a type of number, always with the same random weights."""
    original = make_model(size.shape, torch.float32, device)
    return lambda kind: original if kind == "float32" else ready(_rounded(original, DTYPES[kind]))


def _rounded(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    copied: PreTrainedModel = copy.deepcopy(model).to(dtype)  # type: ignore[arg-type]
    return copied


def model_folder(text: str) -> Path:
    """The path of a folder with a model, for argparse. Raises ArgumentTypeError for any other text."""
    if not (Path(text) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"found {text!r}; allowed: a folder with config.json and safetensors weights")
    return Path(text)


def prompts_file(text: str) -> pd.DataFrame:
    """The prompts in an artefact of the pipeline, for argparse. Raises ArgumentTypeError for any other file."""
    try:
        return pd.read_parquet(text, columns=["query_id", "token_ids"])
    except (OSError, ValueError):
        raise argparse.ArgumentTypeError(
            f"found {text!r}; allowed: a file of results/prompts (parquet with the columns query_id and token_ids)"
        ) from None


def main() -> None:
    options = parser(__doc__, token_budget=8192)
    options.add_argument("--model", type=model_folder, nargs="+", default=[], help="folders of models")
    options.add_argument(
        "--prompts", type=prompts_file, nargs="+", default=[], help="prompts of each --model (parquet)"
    )
    options.add_argument("--size", choices=SIZES, nargs="+", default=[], help="models of random weights")
    options.add_argument("--layers", type=count, help="of each --size, if memory is short; default: the size's own")
    options.add_argument("--n-prompts", type=count, default=16, help="prompts that are scored; default: %(default)s")
    options.add_argument("--dtypes", choices=("bfloat16", "float16", "tf32"), nargs="+", help="default: all there are")
    arguments = options.parse_args()
    if not arguments.model and not arguments.size:
        options.error("there is no model: name one with --size, or a folder with --model.")
    if len(arguments.prompts) not in (0, len(arguments.model)):
        options.error(f"{len(arguments.model)} models need as many --prompts, or none: found {len(arguments.prompts)}.")
    if arguments.layers and not arguments.size:
        options.error("--layers is for the random weights of --size; a --model keeps all its layers.")
    device = device_of(options, arguments)
    numbers = arguments.dtypes or ["bfloat16", "float16", *(["tf32"] if device.type == "cuda" else [])]
    if "tf32" in numbers and device.type == "cpu":
        options.error("tf32 is a mode of NVIDIA GPUs: leave it out on the CPU.")
    budget = arguments.token_budget
    lengths = [20 + 7 * index % 11 for index in range(arguments.n_prompts)]

    rows = []
    for index, folder in enumerate(arguments.model):
        load = from_folder(folder, device)
        try:
            if arguments.prompts:
                prompts = arguments.prompts[index].head(arguments.n_prompts)
            else:
                prompts = make_prompts(lengths, load("float32").config.get_text_config(decoder=True).vocab_size)
            rows += table(folder.name, load, prompts, numbers, budget)
        except SafetyHeadsError as error:
            options.error(str(error))
    for name in arguments.size:
        size = SIZES[name]
        shape = replace(size.shape, layers=arguments.layers or size.shape.layers)
        load = random_weights(replace(size, shape=shape), device)
        prompts = make_prompts(lengths, shape.vocabulary)
        rows += table(f"{name}, random, {shape.layers} layers", load, prompts, numbers, budget)
    print(f"{device_name(device)}: at most {arguments.n_prompts} prompts a model, compared with float32\n")
    print_table(_TITLES, rows)


if __name__ == "__main__":
    main()
