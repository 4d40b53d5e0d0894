"""Measure output tokens per second, with prompts of 128 tokens and 128 new ones, in one batch as large as fits the GPU.

Compared are transformers' `generate`, the library without ablation, and the library with another head ablated in each
row.

    PYTHONPATH=workflow python benchmarks/throughput.py --size tiny
"""

from collections.abc import Sequence
from typing import Any

import torch
from benchmark_outcome import Work, outcome, publish, row
from flops import decoding, generation_bytes, plain_pass
from generation import fitting
from measure import Peaks, Variant, fresh_parts, in_turn
from options import device_of, dtype_name, dtype_of, timing_parser
from sizes import ABLATION, SIZES, Size, make_model, make_prompts, spread_heads
from transformers import PreTrainedModel

from safetyheads.engine.generation import Row, generate
from safetyheads.engine.out_of_memory import Pieces
from safetyheads.heads import HeadSet
from safetyheads.plans import Decoding


class Task:
    """A model and different prompts of one length, with the three ways to complete them."""

    def __init__(self, model: PreTrainedModel, size: Size, token_budget: int) -> None:
        self.model, self.new, self.token_budget = model, size.throughput.new_tokens, token_budget
        tokens = size.throughput.prompt_tokens
        rows = min(size.throughput.rows, max(1, token_budget // (tokens + self.new)))
        self.prompts: list[list[int]] = make_prompts([tokens] * rows, size.shape.vocabulary)["token_ids"].tolist()
        spread = spread_heads(size.shape, min(rows, size.shape.layers))
        self.heads: list[HeadSet] = [(spread[index % len(spread)],) for index in range(rows)]
        self.limit: int | None = None  # rows of a piece, once `generate` has run out of memory

    @torch.inference_mode()
    def generate(self, _: int) -> list[list[int]]:
        """Complete all rows with `model.generate`, at once or in pieces that fit into memory."""

        def some(prompts: list[list[int]]) -> list[list[int]]:
            ids = torch.tensor(prompts, device=self.model.device)
            settings: Any = {"do_sample": False, "max_new_tokens": self.new, "pad_token_id": 0}
            made: Any = self.model.generate(  # type: ignore[operator]
                ids, attention_mask=torch.ones_like(ids), **settings
            )
            found: list[list[int]] = made[:, ids.shape[1] :].tolist()
            return found

        with fresh_parts() as parts:
            pieces = Pieces(parts)
            pieces.limit = self.limit
            made = [tokens for piece in pieces.of(some, self.prompts) for tokens in piece]
        self.limit = pieces.limit
        return made

    def plain(self, _: int) -> list[list[int]]:
        """Complete all rows with the library, with nothing ablated."""
        return self._packed([()] * len(self.prompts))

    def ablated(self, _: int) -> list[list[int]]:
        """Complete all rows with the library, with one head ablated in each row and another one in the next."""
        return self._packed(self.heads)

    def _packed(self, head_sets: Sequence[HeadSet]) -> list[list[int]]:
        rows = [Row(f"q-{index:04d}", *both) for index, both in enumerate(zip(self.prompts, head_sets))]
        decoding = Decoding(max_new_tokens=self.new)
        with fresh_parts() as parts:
            made = generate(
                *(self.model, rows, ABLATION, decoding), eos_token_ids=(), token_budget=self.token_budget, parts=parts
            )
        return [made[index].token_ids for index in range(len(rows))]


def main() -> None:
    options = timing_parser(__doc__)
    arguments = options.parse_args()
    device, size = device_of(options, arguments), SIZES[arguments.size]
    dtype, work, shape = dtype_of(arguments, size), size.throughput, size.shape
    model = make_model(shape, dtype, device)
    task = Task(model, size, arguments.token_budget or fitting(size, device, dtype))
    ways = {"generate": task.generate, "packed": task.plain, "packed, a head each": task.ablated}
    for way in ways.values():  # the first run is not measured; it finds out what fits into memory
        way(0)
    rows, tokens, new = len(task.prompts), work.prompt_tokens, work.new_tokens
    peaks = Peaks({dtype: []})
    variants = [Variant(name, way, sample=f"all {rows} rows", dtype=dtype) for name, way in ways.items()]
    timings = in_turn(variants, peaks, device, size.peak, arguments.rounds, arguments.limit)
    least = Work(
        rows * (plain_pass(shape, tokens) + decoding(shape, tokens, new)),
        generation_bytes(shape, [tokens] * rows, 1, new, task.token_budget, dtype.itemsize),
        timings[0].median,
    )
    different = [
        sum(ours != theirs for ours, theirs in zip(*rows))
        for rows in zip(timings[1].found[-1], timings[0].found[-1])
    ]  # fmt: skip
    publish(
        outcome(
            *("throughput", arguments.size, device, peaks),
            [row(timing, least, peaks, output_tokens_per_second=rows * new / timing.median) for timing in timings],
            agreement={"packed": {"rows": rows, "rows_different": sum(map(bool, different))}},
            task=f"{rows} prompts of {tokens} tokens, {new} new ones, {dtype_name(dtype)}, "
            f"at most {task.limit or rows} rows of generate at a time, {len(timings[0].seconds)} rounds",
            token_budget=task.token_budget,
            dtype=dtype_name(dtype),
        ),
        arguments.save,
    )


if __name__ == "__main__":
    main()
