"""Are the results right on this device? Exact where they must be (float32, no head ablated), and how noisy 16 bits are.

    PYTHONPATH=workflow python benchmarks/correctness.py --size tiny           # exact: the device next to the CPU
    PYTHONPATH=workflow python benchmarks/correctness.py --size tiny --noise   # 16 bits, in other batches

The last line is one JSON object. The exit status is 1 if one of the checks that must hold does not.
"""

import copy
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from generation import Task, Tokens, fitting
from options import count, device_name, device_of, dtype_name, dtype_of, sized_parser
from outcome import keep, versions
from scoring import differences, partial
from sizes import SIZES, Generation, Size, make_model, make_prompts
from transformers import PreTrainedModel

from safetyheads.engine.ablation import ablate
from safetyheads.heads import Ablation, Head, Kind

LENGTHS = (25, 22, 28, 25)
ROWS, TOKENS, HEAD_SETS = 8, 24, 5  # of the check that no ablation changes nothing; of completions
TOP = 10  # heads


def exact(size: Size, device: torch.device, budget: int) -> dict[str, Any]:
    """What must hold on the device: scores and greedy tokens of the CPU, `generate`'s tokens, no-ops to the bit."""
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
    """By kind of ablation: are rows without an ablated head the plain model's, to the last bit?

    Once with empty head sets for all rows, and once with the heads of two layers ablated in one row of the batch.
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
    """How far results differ between batches that only their company distinguishes: rounding, which no one can choose.

    Logits of a prompt alone and among others; greedy texts of all rows together and in four batches; scores in batches
    as the budget allows and in batches of one prompt with half the heads of a layer.
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
    """Last-position logits of ROWS prompts, each alone, next to the same ones in larger batches."""
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
    """Rank correlation; scores are never exactly equal here."""
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
