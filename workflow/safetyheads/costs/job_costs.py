"""The cost of a study's jobs, from its configuration alone: seconds, memory, shards, and the table that says so.

Nothing here depends on what has been computed before, or on the machine that plans. What is not known is taken to be
typical: queries of 85 characters (about 21 tokens), 4 characters a token where the vocabulary is large, 15 tokens for
what a chat template puts around a query, heads spread evenly over the layers, completions of full length.
"""

from functools import lru_cache
from math import log2
from pathlib import Path
from typing import NamedTuple

from safetyheads.config.load import Config
from safetyheads.config.sections import Template
from safetyheads.costs.device_speed import (
    TERA,
    Rate,
    Speed,
    Work,
    generation_batches,
    generation_memory,
    generation_work,
    scoring_memory,
    scoring_work,
    speed_of,
)
from safetyheads.costs.model_sizes import ModelSize
from safetyheads.costs.query_counts import Queries
from safetyheads.heads import parse_head
from safetyheads.plans import parse_plan

QUERY_CHARACTERS = 85.0
CHAT_TOKENS = 15
HOUR = 3600.0
BATCHES_OF_SHARD = 12
"""At least; one batch more or less than the others then is no more than a tenth of a shard's work."""


class Job(NamedTuple):
    """Seconds of a job from start to end, and those of them in which it computes; bytes that it needs on its device;
    bytes of the machine's own memory.
    """

    seconds: float
    work: float
    device_memory: int
    host_memory: int


class Estimates:
    """The cost of each job of a configuration; None where the size of the model or of the data set is not known.

    `folder` is where relative paths start. `gpu` says whether `device: auto` finds one; shards do not depend on that.
    """

    def __init__(self, config: Config, folder: Path | None = None, *, gpu: bool = True) -> None:
        self.config, self.folder = config, folder or Path()
        self.device = _device(config, gpu)
        self._planned = self if gpu else Estimates(config, folder)
        self._known: dict[tuple[str, str], tuple[ModelSize, Queries] | None] = {}

    def ships(self, model: str, dataset: str, template: str) -> Job | None:
        """The job of rule `ships`, whatever the ablation."""
        return self._scoring(model, dataset, template, 1)

    def sahara(self, model: str, dataset: str, template: str) -> Job | None:
        """The job of rule `sahara`, whatever the ablation: a sweep over all heads for every step."""
        return self._scoring(model, dataset, template, self.config.attribution.steps)

    def completions(
        self, model: str, dataset: str, template: str, plan: str, decoding: str, shards: int = 1
    ) -> Job | None:
        """A job of rule `completions`, or of one of its shards."""
        cell = self._cell(model, dataset, template, plan, decoding)
        if cell is None:
            return None
        work = cell.speed.generation.seconds(cell.work) / shards
        return self._job(model, cell.size, work, cell.memory)

    def shards(self, model: str, dataset: str, template: str, plan: str, decoding: str) -> int:
        """How many jobs share a cell's completions: as `compute: shards` says, or jobs of about an hour.

        One where the size of the model or data set is not known.
        """
        if self.config.compute.shards != "auto":
            return int(self.config.compute.shards)
        cell = self._planned._cell(model, dataset, template, plan, decoding)
        if cell is None:
            return 1
        wanted = round(cell.speed.generation.seconds(cell.work) / HOUR)
        return max(1, min(wanted, cell.batches // BATCHES_OF_SHARD))

    def _scoring(self, model: str, dataset: str, template: str, sweeps: int) -> Job | None:
        known = self._sizes(model, dataset)
        if known is None:
            return None
        size, queries = known
        tokens, budget, width = self._tokens(size, queries, template), self._budget, self._width(model)
        work = _scoring_work(size, queries.rows, tokens, budget, width)
        seconds = sweeps * self._speed(model).scoring.seconds(work)
        return self._job(model, size, seconds, scoring_memory(size, tokens, budget, width))

    def _cell(self, model: str, dataset: str, template: str, plan: str, decoding: str) -> "_Cell | None":
        known = self._sizes(model, dataset)
        if known is None:
            return None
        size, queries = known
        tokens, budget, width = self._tokens(size, queries, template), self._budget, self._width(model)
        settings, first_layers = self.config.decoding(decoding), self._first_layers(plan, size)
        new, rows = settings.max_new_tokens, queries.rows * len(first_layers) * settings.samples
        return _Cell(
            size,
            _generation_work(size, queries.rows, tokens, first_layers, settings.samples, new, budget, width),
            generation_batches(rows, tokens, new, budget),
            generation_memory(size, rows, tokens, new, budget, width),
            self._speed(model),
        )

    def _job(self, model: str, size: ModelSize, seconds: float, device_memory: int) -> Job:
        weights, speed = size.parameters * self._width(model), self._speed(model)
        host = 4_000_000_000 + weights if self.device != "cpu" else 1_500_000_000 + device_memory
        return Job(speed.start + weights / speed.loading + seconds, seconds, device_memory, host)

    def _first_layers(self, plan: str, size: ModelSize) -> tuple[int, ...]:
        """The first layer that each head set of a plan ablates, of the sets that one prompt has."""
        parsed, layers = parse_plan(plan), size.shape.layers
        match parsed.kind:
            case "none":
                return (layers,)
            case "single":
                return tuple(layer for layer in range(layers) for _ in range(size.shape.heads))
            case "head_set":
                return (min((parse_head(head).layer for head in self.config.head_sets.get(plan, ())), default=0),)
            case "random":
                return (layers // ((parsed.n or 1) + 1),) * self.config.random.draws
            case _:
                return (layers // ((parsed.n or 1) + 1),)

    def _sizes(self, model: str, dataset: str) -> tuple[ModelSize, Queries] | None:
        if (model, dataset) not in self._known:
            size, queries = self.config.size(model, self.folder), self.config.queries(dataset, self.folder)
            self._known[model, dataset] = None if size is None or queries is None else (size, queries)
        return self._known[model, dataset]

    def _tokens(self, size: ModelSize, queries: Queries, template: str) -> int:
        return prompt_tokens(self.config.template(template), queries.characters, size.shape.vocabulary)

    def _width(self, model: str) -> int:
        dtype = self.config.model(model).dtype
        return 4 if dtype in ("float32", "tf32") or (dtype == "auto" and self.device == "cpu") else 2

    def _speed(self, model: str) -> Speed:
        given = self.config.compute.speed
        speed = speed_of(self.device, self.config.model(model).dtype, self.config.compute.threads)
        return Speed(
            Rate(given.scoring * TERA) if given.scoring else speed.scoring,
            Rate(given.generation * TERA) if given.generation else speed.generation,
            given.start or speed.start,
        )

    @property
    def _budget(self) -> int:
        return self.config.compute.token_budget


def _device(config: Config, gpu: bool) -> str:
    """The device to reckon with; `gpu` says whether `device: auto` finds one."""
    wanted = config.compute.device
    if config.compute.speed.device != "auto":
        return config.compute.speed.device
    return "cpu" if wanted == "cpu" or (wanted == "auto" and not gpu) else "a100"


class _Cell(NamedTuple):
    """The completions of a cell: what they take altogether, in how many batches."""

    size: ModelSize
    work: Work
    batches: int
    memory: int
    speed: Speed


_scoring_work, _generation_work = lru_cache(scoring_work), lru_cache(generation_work)


def prompt_tokens(template: Template, query_characters: float | None, vocabulary: int) -> int:
    """The tokens of a typical prompt, by its characters."""
    around = template.text.replace("{query}", "") if template.text else template.system or ""
    characters = len(around) + len(template.prefill) + (query_characters or QUERY_CHARACTERS)
    each = max(1.0, min(4.0, 0.57 * log2(vocabulary / 256)))  # 4 for 32,000 tokens; 256 are bytes
    return round(characters / each) + 1 + (CHAT_TOKENS if template.chat else 0)
