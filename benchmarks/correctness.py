"""Check that results are right on this device, or measure by how much 16-bit results depend on the batch.

    PYTHONPATH=workflow python benchmarks/correctness.py --size tiny           # the device compared with the CPU
    PYTHONPATH=workflow python benchmarks/correctness.py --size tiny --noise   # 16 bits, in different batches

Without --noise, results in float32 must agree with the CPU's, and rows without an ablated head must equal the plain
model's to the last bit. The last line of the output is one JSON object. The exit status is 1 if a check fails.
"""

import copy
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from benchmark_outcome import keep, versions
from generation import Task, Tokens, fitting
from options import count, device_name, device_of, dtype_name, dtype_of, sized_parser
from scoring import differences, partial
from sizes import SIZES, Generation, Size, make_model, make_prompts
from transformers import PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.heads import Ablation, Head, Kind

LENGTHS = (25, 22, 28, 25)
# Rows and tokens of a batch in `nothing_changes`; TOKENS and HEAD_SETS are also the size of the completions in `exact`.
ROWS, TOKENS, HEAD_SETS = 8, 24, 5
TOP = 10  # how many of the best heads are compared


def exact(size: Size, device: torch.device, budget: int) -> dict[str, Any]:
    """The checks that must hold on the device, and what they found.

    In float32, scores must be the CPU's up to rounding, and greedy tokens those of the CPU and of transformers'
    `generate`, unless the two best logits are closer than `generation.MARGIN`. Rows without an ablated head must not
    change at all.
    """
    model = make_model(size.shape, torch.float32, device)
    on_cpu: PreTrainedModel = copy.deepcopy(model).to("cpu")  # type: ignore[arg-type]
    scores = differences(partial(model, LENGTHS, budget), partial(on_cpu, LENGTHS, budget))
    work = Generation(LENGTHS, HEAD_SETS, TOKENS, 1, HEAD_SETS, budget)
    task, cpu = (Task(each, size.shape, work, budget) for each in (model, on_cpu))
    for each in (task, cpu):
        each.head_sets = [(), *each.head_sets[1:]]
    packed = task.packed(0)
    tokens = {
        "packed and CPU": cpu.agreement(packed, cpu.packed(0)),
        "packed and generate": task.agreement(packed, task.per_head_set(0)),
    }
    no_op = {"float32": nothing_changes(model, size.shape.vocabulary)}
    del task, model
    no_op["bfloat16"] = nothing_changes(make_model(size.shape, torch.bfloat16, device), size.shape.vocabulary)
    return {
        "holds": {
            "scores are the CPU's": scores["within_1e-5_plus_1e-4_of_value"],
            **{f"tokens: {name}": found["differences_above_margin"] == 0 for name, found in tokens.items()},
            **{f"no-op in {name}": all(found.values()) for name, found in no_op.items()},
        },
        "scores": scores,
        "tokens": tokens,
        "no_op": no_op,
    }


@torch.inference_mode()
def nothing_changes(model: PreTrainedModel, vocabulary: int) -> dict[str, bool]:
    """For each kind of ablation, whether rows without an ablated head equal the plain model's to the last bit.

    This is checked once with no head ablated in any row, and once with a head of every layer ablated in one row of the
    batch. That row itself must change.
    """
    ids = torch.tensor(make_prompts([TOKENS] * ROWS, vocabulary)["token_ids"].tolist(), device=model.device)
    plain = model(ids, use_cache=False).logits  # (ROWS, TOKENS, vocabulary)
    config, found = model.config, {}
    heads = tuple(Head(layer, config.num_attention_heads - 1) for layer in range(config.num_hidden_layers))
    for kind in Kind:
        with ablate(model, Ablation(kind), [()] * ROWS):
            alike = torch.equal(model(ids, use_cache=False).logits, plain)
        with ablate(model, Ablation(kind), [(), heads, *[()] * (ROWS - 2)]):
            logits = model(ids, use_cache=False).logits
        others = torch.equal(logits[2:], plain[2:]) and torch.equal(logits[0], plain[0])
        found[str(kind)] = alike and others and not torch.equal(logits[1], plain[1])
    return found


def noise(size: Size, device: torch.device, dtype: torch.dtype, budget: int) -> dict[str, Any]:
    """How far the results for a row differ if only the other rows of its batch differ.

    Such differences come from rounding alone: the shape of a batch decides in which order sums are made. Compared are
    logits of prompts alone and in larger batches, greedy texts of all rows together and in four batches, and scores in
    batches as large as `budget` tokens and in small ones, of one prompt with half the heads of a layer.
    """
    model, shape = make_model(size.shape, dtype, device), size.shape
    lengths = size.scoring.lengths
    generated = replace(
        size.generation, head_sets=min(32, size.generation.head_sets), new_tokens=min(64, size.generation.new_tokens)
    )
    texts: list[Tokens] = []
    most = fitting(size, device, dtype)
    needed = len(generated.lengths) * generated.head_sets * (max(generated.lengths) + generated.new_tokens)
    for tokens in (most, min(most, needed) // 4):
        texts.append(Task(model, shape, generated, tokens).packed(0))
    scores = [partial(model, lengths, tokens) for tokens in (budget, max(lengths) * shape.heads // 2)]
    differ = [pair for pair, tokens in texts[0].items() if tokens != texts[1][pair]]
    first = [
        next(step for step, both in enumerate(zip(texts[0][pair], texts[1][pair])) if both[0] != both[1])
        for pair in differ
    ]
    return {
        "logits": _logits(model, shape.vocabulary),
        "scores": {
            **differences(scores[1], scores[0]),
            "rank_correlation": float(np.mean([_spearman(*rows) for rows in zip(*scores)])),
            f"top_{TOP}_overlap": float(np.mean([len(_best(one) & _best(other)) / TOP for one, other in zip(*scores)])),
        },
        "texts": {
            "compared": len(texts[0]),
            "different": len(differ),
            "new_tokens": generated.new_tokens,
            "median_token_of_first_difference": float(np.median(first)) if first else None,
        },
    }


@torch.inference_mode()
def _logits(model: PreTrainedModel, vocabulary: int) -> dict[str, Any]:
    """Compare the last position's logits of ROWS prompts in larger batches with those of each prompt alone."""
    ids = torch.tensor(make_prompts([TOKENS] * ROWS, vocabulary)["token_ids"].tolist(), device=model.device)

    def last(batch: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(model(batch, use_cache=False, logits_to_keep=1).logits[:ROWS, -1].float())

    alone = torch.cat([last(row[None]) for row in ids])
    found: dict[str, Any] = {"standard_deviation": float(alone.std())}
    for rows in (ROWS, 8 * ROWS):
        others = last(ids.repeat(rows // ROWS, 1))
        found[f"batch of {rows}"] = {
            "largest_difference": float((others - alone).abs().max()),
            "mean_difference": float((others - alone).abs().mean()),
            "best_token_differs": int((others.argmax(-1) != alone.argmax(-1)).sum()),
            "of": ROWS,
        }
    return found


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation, without a rule for ties, because scores are never exactly equal here."""
    ranks = [np.argsort(np.argsort(scores, kind="stable"), kind="stable") for scores in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _best(scores: np.ndarray) -> set[int]:
    return set(np.argsort(-scores, kind="stable")[:TOP].tolist())


def main() -> None:
    options = sized_parser(__doc__)
    options.add_argument("--layers", type=count, help="of the model, if memory or time is short; default: the size's")
    options.add_argument("--noise", action="store_true", help="how noisy --dtype is, in place of the exact checks")
    arguments = options.parse_args()
    device, size = device_of(options, arguments), SIZES[arguments.size]
    shape = replace(size.shape, layers=arguments.layers or size.shape.layers)
    size, budget = replace(size, shape=shape), arguments.token_budget or min(8192, size.scoring.token_budget)
    found: dict[str, Any] = {
        "benchmark": "noise" if arguments.noise else f"correctness-{shape.layers}-layers",
        "size": arguments.size,
        "device": device_name(device),
        "versions": versions(),
    }
    if arguments.noise:
        dtype = dtype_of(arguments, size)
        found |= {
            "dtype": dtype_name(dtype),
            **noise(size, device, dtype, arguments.token_budget or size.scoring.token_budget),
        }
    else:
        found |= exact(size, device, budget)
    keep(found, arguments.save)
    if not all(found.get("holds", {}).values()):
        sys.exit("does not hold: " + ", ".join(name for name, holds in found["holds"].items() if not holds))


if __name__ == "__main__":
    main()
