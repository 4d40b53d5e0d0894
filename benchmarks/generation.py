"""Measure greedy completions of prompts with many head sets ablated, made in three ways.

- reference: a whole pass for each token, without a cache, one row at a time;
- per head set: transformers' `generate`, once for each head set, over all prompts;
- packed: the library, with all prompts and head sets in common batches.

    PYTHONPATH=workflow python benchmarks/generation.py --size bench
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from benchmark_outcome import Work, outcome, publish, row
from flops import full_pass, generation_bytes, generation_operations
from measure import Peaks, Variant, fresh_parts, in_turn
from options import count, device_of, dtype_name, dtype_of, timing_parser
from sizes import ABLATION, SIZES, Generation, Size, make_model, make_prompts, spread_heads
from transformers import PreTrainedModel

from safetyheads.costs.flops import Shape
from safetyheads.engine.ablation import ablate
from safetyheads.engine.decoder import grid
from safetyheads.engine.generation import Row, generate
from safetyheads.heads import HeadSet
from safetyheads.plans import Decoding

Tokens = dict[tuple[int, int], list[int]]
"""The new tokens of each (prompt, head set), both by number."""

# Two correct programs may sum in another order, which can change the token if the two best logits are nearly equal. If
# these are further apart than this, the tokens must agree.
MARGIN = 1e-3


class Task:
    """A model, prompts and head sets, with the three ways to complete them.

    Each way is given the number of the round, from which the slow ways choose their sample.
    """

    def __init__(self, model: PreTrainedModel, shape: Shape, work: Generation, token_budget: int) -> None:
        self.model, self.work, self.token_budget = model, work, token_budget
        self.prompts: list[list[int]] = make_prompts(work.lengths, shape.vocabulary)["token_ids"].tolist()
        self.head_sets: list[HeadSet] = [(head,) for head in spread_heads(shape, work.head_sets)]

    @torch.inference_mode()
    def reference(self, number: int) -> Tokens:
        """Complete a sample of rows, one at a time, with a whole pass over all tokens so far for each new one."""
        found: Tokens = {}
        for prompt, chosen in enumerate(self._sample(number, self.work.reference)):
            ids = list(self.prompts[prompt])
            with ablate(self.model, ABLATION, [self.head_sets[chosen]]):
                for _ in range(self.work.new_tokens):
                    logits = self.model(torch.tensor([ids], device=self.model.device), use_cache=False).logits
                    ids.append(int(logits[0, -1].argmax()))
            found[prompt, chosen] = ids[len(self.prompts[prompt]) :]
        return found

    @torch.inference_mode()
    def per_head_set(self, number: int) -> Tokens:
        """Complete all prompts, padded on the left, with `model.generate` for each head set of a sample."""
        width = max(map(len, self.prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in self.prompts])
        visible = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in self.prompts])
        settings: Any = {"do_sample": False, "max_new_tokens": self.work.new_tokens, "pad_token_id": 0}
        found: Tokens = {}
        for chosen in self._sample(number, self.work.per_head_set):
            with ablate(self.model, ABLATION, [self.head_sets[chosen]] * len(ids)):
                made: Any = self.model.generate(  # type: ignore[operator]
                    ids.to(self.model.device), attention_mask=visible.to(self.model.device), **settings
                )
            for prompt, tokens in enumerate(made[:, width:].tolist()):
                found[prompt, chosen] = tokens
        return found

    def packed(self, _: int) -> Tokens:
        """Complete all rows as the library does, with plain rows in each batch."""
        return self._generate(self.head_sets, paired=True)

    def _generate(self, head_sets: Sequence[HeadSet], *, paired: bool) -> Tokens:
        pairs = [(prompt, chosen) for prompt in range(len(self.prompts)) for chosen in range(len(head_sets))]
        rows = [Row(f"q-{prompt:04d}", self.prompts[prompt], head_sets[chosen]) for prompt, chosen in pairs]
        decoding = Decoding(max_new_tokens=self.work.new_tokens)
        with fresh_parts() as parts:
            made = generate(
                *(self.model, rows, ABLATION, decoding),
                eos_token_ids=(),
                token_budget=self.token_budget,
                parts=parts,
                paired=paired,
            )
        return {pair: made[index].token_ids for index, pair in enumerate(pairs)}

    def followed(self, found: Tokens) -> float:
        """The share of all work in decoding (layers x rows x steps) that `packed` could leave out.

        As long as a row has the same tokens as the plain row of its prompt, it leaves out the layers below its ablated
        head. `found` are the tokens of all rows.
        """
        plain, steps, left_out = self._generate([()], paired=False), self.work.new_tokens - 1, 0
        for (prompt, chosen), tokens in found.items():
            alike = [ours == theirs for ours, theirs in zip(tokens, plain[prompt, 0])]
            left_out += self.head_sets[chosen][0].layer * ([*alike[:steps], False].index(False))
        return left_out / (len(found) * steps * grid(self.model)[0])

    def _sample(self, number: int, count: int) -> list[int]:
        """A sample of `count` head sets, spread from the first to the last; each round has another sample."""
        sets = len(self.head_sets)
        return [(index * sets // count + number * (sets // 7 + 1)) % sets for index in range(count)]

    @torch.inference_mode()
    def margin(self, pair: tuple[int, int], tokens: list[int]) -> float:
        """The difference between the two best logits after a row's prompt and these tokens, by a whole pass."""
        ids = torch.tensor([self.prompts[pair[0]] + tokens], device=self.model.device)
        with ablate(self.model, ABLATION, [self.head_sets[pair[1]]]):
            first, second = self.model(ids, use_cache=False).logits[0, -1].float().topk(2).values.tolist()
        return float(first - second)

    def agreement(self, found: Mapping[tuple[int, int], list[int]], expected: Tokens) -> dict[str, Any]:
        """How the tokens of two ways compare.

        After a row's first difference the two texts go different ways. So only the margin between the logits at the
        first difference says whether it can come from rounding.
        """
        margins, different = [], 0
        for pair, tokens in expected.items():
            off = [step for step, (ours, theirs) in enumerate(zip(found[pair], tokens)) if ours != theirs]
            different += len(off)
            if off:
                margins.append(self.margin(pair, tokens[: off[0]]))
        return {
            "rows_compared": len(expected),
            "tokens_compared": sum(map(len, expected.values())),
            "tokens_different": different,
            "rows_different": len(margins),
            "differences_above_margin": sum(margin > MARGIN for margin in margins),
            "largest_margin_of_a_difference": max(margins, default=None),
        }


def fitting(size: Size, device: torch.device, dtype: torch.dtype) -> int:
    """A token budget that fits the device: the size's own, but on a GPU no more than its memory can hold.

    Keys and values of all tokens of a batch may take 3/4 of the GPU's free memory.
    """
    if device.type == "cpu":
        return size.generation.token_budget
    of_token = size.shape.layers * size.shape.keys_and_values * dtype.itemsize
    return min(size.generation.token_budget, torch.cuda.mem_get_info(device)[0] * 3 // 4 // of_token)


def benchmark(
    size: Size, device: torch.device, dtype: torch.dtype, budget: int | None, rounds: int, limit: float
) -> Any:
    """Measure all variants, for `rounds` rounds or until `limit` seconds have passed.

    Returns the device's peaks, the rows of the table, and further entries of the outcome: how far the variants agree,
    and what the task was.
    """
    work, shape = size.generation, size.shape
    model = make_model(shape, dtype, device)
    task = Task(model, shape, work, budget or fitting(size, device, dtype))
    prompts, sets = len(work.lengths), work.head_sets

    def tokens_of(lengths: tuple[int, ...]) -> int:
        return sum(full_pass(shape, tokens + step) for tokens in lengths for step in range(work.new_tokens))

    sampled = tokens_of(work.lengths[: work.reference]) / (tokens_of(work.lengths) * sets)
    variants = [
        Variant("reference", task.reference, sampled, f"{work.reference} rows, scaled", dtype),
        Variant(
            "per head set",
            task.per_head_set,
            work.per_head_set / sets,
            f"{work.per_head_set} head sets x {prompts} prompts, scaled",
            dtype,
        ),
        Variant("packed", task.packed, 1.0, f"all {prompts} prompts x {sets} head sets", dtype),
    ]
    warm_up = Generation((2,), 2, 2, 1, 1, 8)
    for way in (Task.reference, Task.per_head_set, Task.packed):
        way(Task(model, shape, warm_up, 8), 0)

    peaks = Peaks({dtype: []})
    timings = in_turn(variants, peaks, device, size.peak, rounds, limit)
    layers = [head.layer for (head,) in task.head_sets]
    least = Work(
        generation_operations(shape, work.lengths, layers, work.new_tokens),
        generation_bytes(shape, work.lengths, sets, work.new_tokens, task.token_budget, dtype.itemsize),
        timings[0].median,
    )
    completions = prompts * sets
    rows = [
        row(
            timing,
            least,
            peaks,
            completions_per_second=completions / timing.median,
            output_tokens_per_second=completions * work.new_tokens / timing.median,
        )
        for timing in timings
    ]
    packed = timings[-1].found[-1]
    agreement: dict[str, dict[str, Any]] = {
        timing.variant.name: task.agreement(packed, {pair: row for some in timing.found for pair, row in some.items()})
        for timing in timings[:-1]
    }
    agreement["packed"] = {"share_of_decoding_followed": task.followed(packed)}
    said = f"{completions} completions of {work.new_tokens} tokens: {prompts} prompts of "
    said += f"{min(work.lengths)}-{max(work.lengths)} tokens x {sets} head sets of one head"
    said += f", {dtype_name(dtype)}, batches of {task.token_budget} tokens, {len(timings[0].seconds)} rounds"
    more = {"agreement": agreement, "task": said, "token_budget": task.token_budget, "dtype": dtype_name(dtype)}
    return peaks, rows, more


def main() -> None:
    options = timing_parser(__doc__)
    options.add_argument("--head-sets", type=count, help="how many, of one head each; default: the size's own")
    arguments = options.parse_args()
    device, size = device_of(options, arguments), SIZES[arguments.size]
    if arguments.head_sets:
        size = replace(size, generation=replace(size.generation, head_sets=arguments.head_sets))
    dtype = dtype_of(arguments, size)
    peaks, rows, more = benchmark(size, device, dtype, arguments.token_budget, arguments.rounds, arguments.limit)
    found = outcome("generation", arguments.size, device, peaks, rows, **more)
    found["ratios"]["packed to per head set"] = found["ratios"]["packed"] / found["ratios"]["per head set"]
    publish(found, arguments.save)


if __name__ == "__main__":
    main()
