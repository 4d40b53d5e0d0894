"""Measure the Ships scores of every head, computed in three ways, and one step of Sahara.

- reference: a whole pass for each head and prompt, one row at a time;
- batched: whole passes, with many heads in a batch;
- partial: the library, which computes only what changes.

Sahara is measured with `--size tiny` and `--size llama-2-7b`.

    PYTHONPATH=workflow python benchmarks/scoring.py --size bench
"""

import copy
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from benchmark_outcome import Work, outcome, publish, row
from flops import full_pass, scoring_bytes, scoring_operations
from measure import Peaks, Variant, fresh_parts, in_turn
from options import device_name, device_of, dtype_name, dtype_of, timing_parser
from sizes import ABLATION, SIZES, Size, make_model, make_prompts, spread_heads
from transformers import PreTrainedModel

from safetyheads.attribution.ships import ships
from safetyheads.costs.flops import Shape
from safetyheads.engine.ablation import ablate
from safetyheads.engine.divergence import divergence
from safetyheads.heads import HeadSet, all_heads

Prompts = Sequence[Sequence[int]]
METHODS = ("ships", "sahara")


@torch.inference_mode()
def whole_passes(model: PreTrainedModel, prompts: Prompts, heads: HeadSet, token_budget: int) -> np.ndarray:
    """Ships scores (prompts, heads), in nats, by whole passes with logits at every position.

    A pass has the rows of as many heads as fit into `token_budget`. A budget of 0 is the reference algorithm, which has
    one row in each pass.
    """
    scores = np.empty((len(prompts), len(heads)))
    for prompt, of_heads in zip(prompts, scores):
        ids = torch.tensor([list(prompt)], device=model.device)
        plain = model(ids, use_cache=False).logits[0, -1]
        rows = max(1, token_budget // len(prompt))
        for start in range(0, len(heads), rows):
            sets = [(head,) for head in heads[start : start + rows]]
            with ablate(model, ABLATION, sets):
                logits = model(ids.expand(len(sets), -1), use_cache=False).logits  # (rows, T, vocabulary)
            of_heads[start : start + rows] = divergence(plain, logits[:, -1]).cpu().numpy()
    return scores


def partial(model: PreTrainedModel, lengths: Sequence[int], token_budget: int) -> np.ndarray:
    """Ships scores (prompts, heads), in nats, as the library computes them, for random prompts of these lengths."""
    prompts = make_prompts(lengths, model.config.vocab_size)
    with fresh_parts() as parts:
        found = ships(model, prompts, ABLATION, token_budget=token_budget, parts=parts)
    scores: np.ndarray = found["score"].to_numpy().reshape(len(prompts), -1)
    return scores


def sahara_step(model: PreTrainedModel, lengths: Sequence[int], token_budget: int) -> np.ndarray:
    """The scores of Sahara's first step (heads,), in degrees, for random prompts of these lengths."""
    from safetyheads.attribution.sahara import sahara  # imported only here, because it needs SciPy

    prompts = make_prompts(lengths, model.config.vocab_size)
    settings: Any = {"steps": 1, "rank": 1, "representation": "final_norm", "token_budget": token_budget}
    with fresh_parts() as parts:
        scores: np.ndarray = sahara(model, prompts, ABLATION, parts=parts, **settings)["score"].to_numpy()
    return scores


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model that computes everything in float32."""
    copied: PreTrainedModel = copy.deepcopy(model).float()  # type: ignore[no-untyped-call]
    return copied


def passes(shape: Shape, lengths: Sequence[int], heads: int) -> int:
    """The operations of the reference algorithm: for each prompt a plain pass and a whole pass for each head."""
    return (1 + heads) * sum(full_pass(shape, tokens) for tokens in lengths)


def differences(found: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """How two arrays of scores differ, where both have a value (not NaN)."""
    known = ~np.isnan(found) & ~np.isnan(expected)
    off, value = np.abs(found - expected)[known], expected[known]
    return {
        "compared": int(known.sum()),
        "largest_difference": float(off.max()),
        "largest_relative_difference": float((off / np.maximum(value, 1e-12)).max()),
        "within_1e-5_plus_1e-4_of_value": bool((off <= 1e-5 + 1e-4 * value).all()),
        "median_score": float(np.median(value)),
    }


def benchmark(
    size: Size, device: torch.device, dtype: torch.dtype, budget: int, rounds: int, limit: float, methods: Sequence[str]
) -> Any:
    """Measure all variants of `methods`, for `rounds` rounds or until `limit` seconds have passed.

    Returns the device's peaks, the rows of the table, and further entries of the outcome: how far the variants agree,
    and what the task was.
    """
    work, shape = size.scoring, size.shape
    model = make_model(shape, dtype, device)
    # The reference algorithm is timed in float32 and, if the model has another type of number, in that one as well.
    references = {"reference": model if dtype == torch.float32 else in_float32(model)}
    if dtype != torch.float32:
        references[f"reference {dtype_name(dtype)}"] = model
    ids = make_prompts(work.lengths, shape.vocabulary)["token_ids"].tolist()
    heads = all_heads(shape.layers, shape.heads)
    total = passes(shape, work.lengths, len(heads))

    def sampled(name: str, sampled_model: PreTrainedModel, sample: tuple[int, int], token_budget: int) -> Variant:
        chosen = spread_heads(shape, sample[1])
        if token_budget:  # add the reference's heads, so that scores can be compared
            chosen = tuple(sorted({*chosen, *spread_heads(shape, work.reference[1])}))

        def run(_: int) -> np.ndarray:
            scores = np.full((len(ids), len(heads)), np.nan)
            columns = [heads.index(head) for head in chosen]
            scores[: sample[0], columns] = whole_passes(sampled_model, ids[: sample[0]], chosen, token_budget)
            return scores

        share = passes(shape, work.lengths[: sample[0]], len(chosen)) / total
        return Variant(name, run, share, f"{sample[0]} prompts x {len(chosen)} heads, scaled", sampled_model.dtype)

    everything = f"all {len(ids)} prompts x {len(heads)} heads"
    variants = [sampled(name, reference, work.reference, 0) for name, reference in references.items()]
    if "ships" in methods:
        variants += [
            sampled("batched", model, work.batched, budget),
            Variant("partial", lambda _: partial(model, work.lengths, budget), sample=everything, dtype=dtype),
        ]
    if "sahara" in methods and work.sahara_lengths:
        step = f"one step, all {len(work.sahara_lengths)} prompts x {len(heads)} heads"
        variants.append(
            Variant("sahara", lambda _: sahara_step(model, work.sahara_lengths, budget), sample=step, dtype=dtype)
        )
    for reference in references.values():  # the first pass is slower than others and not measured
        whole_passes(reference, ids[:1], heads[:1], 0)
    partial(model, [2], budget)

    peaks = Peaks({dtype: [], torch.float32: []})
    timings = in_turn(variants, peaks, device, size.peak, rounds, limit)
    expected, seconds = timings[0].found[0], timings[0].median

    def least(lengths: Sequence[int]) -> Work:
        scaled = seconds * passes(shape, lengths, len(heads)) / total
        moved = scoring_bytes(shape, lengths, budget, dtype.itemsize)
        return Work(scoring_operations(shape, lengths), moved, scaled)

    agreement, rows = {}, []
    for timing in timings:
        name = timing.variant.name
        if name == "sahara":
            rows.append(row(timing, least(work.sahara_lengths), peaks))
            continue
        agreement[name] = differences(timing.found[-1], expected)
        difference = agreement[name]["largest_difference"]
        rows.append(row(timing, least(work.lengths), peaks, largest_difference=difference))
    del agreement["reference"]
    lengths = work.lengths if "ships" in methods else work.sahara_lengths
    task = f"{len(lengths)} prompts of {min(lengths)}-{max(lengths)} tokens, {len(heads)} heads"
    task += f", {dtype_name(dtype)}, batches of {budget} tokens, {len(timings[0].seconds)} rounds"
    return peaks, rows, {"agreement": agreement, "task": task, "token_budget": budget, "dtype": dtype_name(dtype)}


def compare(size: Size, device: torch.device, budget: int) -> dict[str, Any]:
    """Compare Ships scores in float32 on `device` with those on the CPU, with the same weights."""
    model = make_model(size.shape, torch.float32, torch.device("cpu"))
    expected = partial(model, size.scoring.lengths, budget)
    found = partial(model.to(device), size.scoring.lengths, budget)  # type: ignore[arg-type]
    return {"devices": ["cpu", device_name(device)], **differences(found, expected)}


def main() -> None:
    options = timing_parser(__doc__)
    options.add_argument(
        "--compare-cpu", action="store_true", help="only compare a GPU's scores with the CPU's, in float32"
    )
    options.add_argument(
        "--methods", choices=METHODS, nargs="+", default=METHODS, help="next to the reference algorithm; default: both"
    )
    arguments = options.parse_args()
    device, size = device_of(options, arguments), SIZES[arguments.size]
    budget = arguments.token_budget or size.scoring.token_budget
    if arguments.compare_cpu:
        if device.type == "cpu":
            options.error("--compare-cpu compares a GPU's scores with the CPU's, and the device here is the CPU.")
        print(json.dumps({"size": arguments.size, "compare_cpu": compare(size, device, budget)}))
        return
    dtype = dtype_of(arguments, size)
    methods = arguments.methods
    peaks, rows, more = benchmark(size, device, dtype, budget, arguments.rounds, arguments.limit, methods)
    name = "sahara" if "ships" not in methods else "scoring"
    publish(outcome(name, arguments.size, device, peaks, rows, **more), arguments.save)


if __name__ == "__main__":
    main()
