"""The cost of a study's jobs: seconds, memory, and how many jobs share a cell's completions.

It follows from the configuration alone, not from what was computed before nor from the machine that plans, so that a
plan is the same everywhere. It is rather high: completions count at full length, though many end earlier. Typical
values stand for what is not known: 4 characters a token where the vocabulary is large (1 where it is bytes), 15 tokens
that a chat template puts around a query, 85 characters of a query that is not in a local file.
"""

from collections.abc import Sequence
from functools import cache, partial
from math import log2
from pathlib import Path
from typing import NamedTuple

from safetyheads.config.load import Config
from safetyheads.costs.flops import Shape, Work, checking, reading, work
from safetyheads.costs.model_sizes import TYPICAL_CHARACTERS, judge_shape, model_shape, query_count
from safetyheads.methods import METHODS
from safetyheads.plans import Plan, parse_plan

HOUR, TERA, GIGA = 3600.0, 1e12, 1e9
BATCHES_OF_SHARD = 12  # at least: one more or less is then no more than a tenth of a shard's work

GPUS = {"a100": (312, 156, 19.5, 2039), "h100": (989, 494, 67, 3350), "h200": (989, 494, 67, 4800)}
"""NVIDIA's datasheets of SXM models: tera-operations per second of 16 bits, tf32 and float32, dense; GB per second."""
OF_PEAK, OF_BANDWIDTH, GPU_CALL, GPU_START = 0.5, 0.7, 0.5e-3, 30.0
"""What a GPU is taken to achieve of them; seconds that a layer's call and a job's start take. Not measured yet."""
CPU_RATE, CPU_BANDWIDTH, CPU_CALL, CPU_START = 0.085 * TERA, 11 * GIGA, 0.33e-3, 3.7
"""The same of a thread of an AMD EPYC in float32: fitted to models of 64 to 1,024 wide, and benchmarks/shards.py."""

LABELLED = 500
"""Answers that people have labelled, and tokens of such an answer, where neither is known yet."""
OF_TEMPLATE = {"generative": 350, "classifier": 10}
"""Tokens that the template of a judge has: those of HarmBench and Llama-Guard have 300 to 400."""


class Job(NamedTuple):
    """Seconds of a job from start to end, and bytes that it needs of the machine's own memory."""

    seconds: float
    host_memory: int


class Estimates:
    """The cost of each job of a configuration; None where the size of the model or of the data set is not known.

    `folder` is where relative paths start. `gpu` says whether `device: auto` finds one; shards do not depend on that.
    """

    def __init__(self, config: Config, folder: Path | None = None, *, gpu: bool = True) -> None:
        self.config, self.device, wanted = config, config.compute.speed.device, config.compute.device
        if self.device == "auto":
            self.device = "cpu" if wanted == "cpu" or (wanted == "auto" and not gpu) else "a100"
        self._folder = folder or Path()
        self._shape = cache(partial(model_shape, config, folder=folder or Path()))
        self._queries = cache(partial(query_count, config, folder=folder or Path()))
        self._planned = self if gpu else Estimates(config, folder)

    def checks(self, model: str) -> Job | None:
        """The job of rule `checks`, whose passes over random tokens are always the same ones."""
        shape, compute = self._shape(model), self.config.compute
        return self._job(
            self._timed(checking(shape, self._width(model)), model, compute.speed.scoring) if shape else None
        )

    def scores(self, method: str, model: str, dataset: str, template: str) -> Job | None:
        """The job of a method's scores, whatever the ablation: sweeps over all heads, and whole passes."""
        sweep, prompts = self._cell(model, dataset, template), self._prompts(model, dataset, template)
        if sweep is None or prompts is None:
            return None
        of, (shape, count, tokens), settings = METHODS[method], prompts, self.config.attribution.plain()
        took = sweep[1] * (of.sweeps(settings) + min(1.0, of.sampled(settings) / max(1, count)))
        if whole := of.passes(settings, shape.layers * shape.heads, count):
            passes = reading(shape, whole, tokens, self.config.compute.token_budget, self._width(model))
            took += self._timed(passes, model, self.config.compute.speed.scoring)[1]
        states = 4 * shape.heads * shape.hidden * count if of.searches else 0  # of one layer, all prompts
        return self._job((sweep[0], took), states=states)

    def attention(self, model: str, dataset: str, template: str) -> Job | None:
        """The job of rule `attention`: one pass over each prompt."""
        prompts = self._prompts(model, dataset, template)
        if prompts is None:
            return None
        shape, count, tokens = prompts
        passes = reading(shape, count, tokens, self.config.compute.token_budget, self._width(model))
        return self._job(self._timed(passes, model, self.config.compute.speed.scoring))

    def completions(
        self, model: str, dataset: str, template: str, plan: str, decoding: str, shards: int = 1
    ) -> Job | None:
        """The job of rule `completions`, or of one of its shards."""
        return self._job(self._cell(model, dataset, template, plan, decoding), 1 / shards)

    def judged(
        self, judge: str, model: str, dataset: str, template: str, plans: Sequence[tuple[str, str]]
    ) -> Job | None:
        """The job of rule `judged` for answers of these plans and decodings, if every answer is another text."""
        own, queries, answered = (
            judge_shape(self.config, judge, self._folder),
            self._queries(dataset),
            self._shape(model),
        )
        if own is None or queries is None or answered is None:
            return None
        sets = 0
        for plan, decoding in plans:
            sets += self._sets(parse_plan(plan), answered) * self.config.decoding(decoding).samples
        longest = max((self.config.decoding(decoding).max_new_tokens for _, decoding in plans), default=0)
        return self._read(own, judge, queries[0] * sets, queries[1], longest)

    def labelled(self, judge: str) -> Job | None:
        """The job of rule `labelled` with a judge that has a model, for as many answers as people label."""
        own = judge_shape(self.config, judge, self._folder)
        return self._read(own, judge, LABELLED, TYPICAL_CHARACTERS, LABELLED) if own else None

    def _read(self, own: Shape, judge: str, texts: int, characters: float, longest: int) -> Job | None:
        """The job of a judge's model that reads so many answers of at most so many tokens."""
        known = self.config.judge(judge)
        tokens = (
            OF_TEMPLATE[known.kind] + round(characters / 4) + min(longest, known.clip.tokens if known.clip else longest)
        )
        width = 4 if known.dtype in ("float32", "tf32") or (known.dtype == "auto" and self.device == "cpu") else 2
        texts *= len(known.lead or [""])
        passes = reading(own, texts, tokens, self.config.compute.token_budget, width)
        rate, threads = self.config.compute.speed.scoring, self.config.compute.threads
        took = passes.operations / (rate * TERA) if rate else seconds(passes, self.device, known.dtype, threads)
        return self._job((passes, took))

    def shards(self, model: str, dataset: str, template: str, plan: str, decoding: str) -> int:
        """How many jobs share a cell: as `compute: shards` says, or as many as take an hour; one if that is unknown."""
        if self.config.compute.shards != "auto":
            return int(self.config.compute.shards)
        cell = self._planned._cell(model, dataset, template, plan, decoding)
        return max(1, min(round(cell[1] / HOUR), cell[0].batches // BATCHES_OF_SHARD)) if cell else 1

    def _cell(self, model: str, dataset: str, template: str, *completed: str) -> tuple[Work, float] | None:
        """The work and its seconds: of scoring, or of completions by plan and decoding where these are given."""
        compute, prompts = self.config.compute, self._prompts(model, dataset, template)
        if prompts is None:
            return None
        shape, count, tokens = prompts
        task, own, more = (shape.layers * shape.heads, 1, 1), compute.speed.scoring, {}
        if completed:
            plan, made, own = parse_plan(completed[0]), self.config.decoding(completed[1]), compute.speed.generation
            task = self._sets(plan, shape), made.samples, made.max_new_tokens
            more = {"paired": plan.paired, "likelihoods": True}
        return self._timed(
            work(shape, count, tokens, *task, compute.token_budget, self._width(model), **more), model, own
        )

    def _prompts(self, model: str, dataset: str, template: str) -> tuple[Shape, int, int] | None:
        """The shape of the model, how many prompts there are, and how many tokens one has."""
        shape, queries = self._shape(model), self._queries(dataset)
        if shape is None or queries is None:
            return None
        form, (count, characters) = self.config.template(template), queries
        around = (form.text.replace("{query}", "") if form.text else form.system or "") + form.prefill
        of_token = min(4.0, 1 + 0.43 * log2(max(1, shape.vocabulary / 256)))  # 4 characters for 32,000 tokens
        return shape, count, round((len(around) + characters) / of_token) + 1 + (15 if form.chat else 0)

    def _width(self, model: str) -> int:
        """The bytes of a number."""
        dtype = self.config.model(model).dtype
        return 4 if dtype in ("float32", "tf32") or (dtype == "auto" and self.device == "cpu") else 2

    def _timed(self, found: Work, model: str, own: float | None) -> tuple[Work, float]:
        """Work and its seconds, by the rate that the user has measured, if there is one."""
        dtype, threads = self.config.model(model).dtype, self.config.compute.threads
        return found, found.operations / (own * TERA) if own else seconds(found, self.device, dtype, threads)

    def _sets(self, plan: Plan, shape: Shape) -> int:
        """How many head sets complete each prompt; of matched draws as many as are wanted, though fewer may exist."""
        sets = {"single": shape.layers * shape.heads, "random": self.config.random.draws}
        sets |= {"matched": self.config.random.matched}
        sets |= {"each": plan.n or len(self.config.head_sets.get(plan.head_set or "", ()))}
        return max(1, sets.get(plan.kind, 1))

    def _job(self, cell: tuple[Work, float] | None, times: float = 1, states: int = 0) -> Job | None:
        """A job that starts, loads a gigabyte of weights a second, and does this work so many times."""
        if cell is None:
            return None
        of, cpu = cell[0], self.device == "cpu"
        start = self.config.compute.speed.start or (CPU_START if cpu else GPU_START)
        memory = of.weights + states + (1_500_000_000 + of.batch if cpu else 4_000_000_000)
        return Job(start + of.weights / GIGA + times * cell[1], memory)


def seconds(of: Work, device: str, dtype: str, threads: int) -> float:
    """How long a device computes. A GPU moves at the same time; a CPU first brings weights into another order."""
    if device == "cpu":
        return (of.operations / CPU_RATE + of.moved / CPU_BANDWIDTH) / threads + of.calls * CPU_CALL
    in_16_bits, tf32, float32, bandwidth = GPUS[device]
    peak = {"float32": float32, "tf32": tf32}.get(dtype, in_16_bits)
    both = of.operations / (OF_PEAK * peak * TERA), of.moved / (OF_BANDWIDTH * bandwidth * GIGA)
    return max(both) + of.calls * GPU_CALL
