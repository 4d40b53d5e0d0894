"""The sections of the configuration, one class each; those of models and data sets are in `sources`, that of
attribution in `attribution`.

Documentation and JSON schema are made from these classes. Values are strict, because YAML guesses what an unquoted word
is: a number is not read as text, nor `true` as 1. Errors say what was found and what is allowed.
"""

from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from safetyheads import plans, templates
from safetyheads.config.hints import place_hint
from safetyheads.config.types import (
    ChatArguments,
    Count,
    Date,
    ExperimentName,
    KindName,
    Matching,
    Names,
    Number,
    Seed,
    Shards,
    Text,
)
from safetyheads.heads import Ablation, Kind


class Section(BaseModel):
    """A mapping of the configuration: unknown keys and empty values are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    remarks: ClassVar[frozenset[str]] = frozenset()
    """Keys that describe and change no result."""
    unknown: ClassVar[str] = ""
    """What the message about an unknown key adds where no known key is near."""

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value is None:
            raise PydanticCustomError("empty", "found nothing after the colon")
        return value

    def plain(self) -> dict[str, Any]:
        """What results depend on, as sorted plain Python values without None; the section's class rebuilds it."""
        return cast(dict[str, Any], _sorted(self.model_dump(exclude_none=True, exclude=set(self.remarks))))

    def _given(self, *keys: str) -> list[str]:
        return [key for key in keys if getattr(self, key) is not None]

    def _need_one_of(self, *keys: str) -> str:
        given = self._given(*keys)
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"found {found}; allowed: exactly one of {', '.join(keys)}")
        return given[0]

    def _allow_only_with(self, source: str, needed: str, *keys: str) -> None:
        """Raise ValueError if one of `keys` is given although the source is not `needed`."""
        if source != needed and (given := self._given(*keys)):
            raise ValueError(
                f"found {' and '.join(given)} together with {source}; allowed: only together with {needed}"
            )


def _sorted(value: Any) -> Any:
    return {key: _sorted(value[key]) for key in sorted(value)} if isinstance(value, dict) else value


class Template(Section):
    """How a query becomes a prompt: exactly one of `text`, `chat`."""

    unknown = "Arguments of the chat template go into chat, such as chat: {enable_thinking: false}."

    text: str | None = None
    """Text with `{query}` where the query goes."""
    chat: ChatArguments | None = None
    """`true`: the tokenizer's own chat template; or arguments of that template, such as `{enable_thinking: false}`."""
    name: Text | None = None
    """Which chat template, where the tokenizer has several; `default` unless set. Only with `chat`."""
    date: Date | None = None
    """The day that is today for a chat template that writes the date: `26 Jul 2024` unless set. Only with `chat`."""
    system: Text | None = None
    """System prompt; only with `chat`."""
    prefill: str = ""
    """Start of the answer, put behind the prompt."""
    control_tokens: bool = False
    """What becomes of the text of a control token, such as `</s>`, in a query: `false` keeps it text, `true` makes it
    the token."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._allow_only_with(self._need_one_of("text", "chat"), "chat", "system", "name", "date")
        if self.text is not None and "{query}" not in self.text:
            raise ValueError(
                f"found text {self.text!r} without {{query}}; allowed: text with {{query}} where the query goes"
                f"{place_hint(self.text)}"
            )
        return self

    def plain(self) -> dict[str, Any]:
        values = super().plain()
        if self.chat is not None:
            values["date"] = self.date or templates.DATE
        if not self.control_tokens:
            del values["control_tokens"]
        return cast(dict[str, Any], _sorted(values))


class AblationConfig(Section):
    """What happens to an ablated head."""

    kind: KindName
    """`undifferentiated`: its attention becomes uniform; `scaling`: its output is scaled by epsilon; `mean_*`: its
    query, key or output is replaced by the mean of its layer."""
    epsilon: Number = Ablation.epsilon
    """Factor of `undifferentiated` and `scaling`; not for `mean_*`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not Kind(self.kind).has_epsilon and "epsilon" in self.model_fields_set:
            raise ValueError(f"found epsilon together with kind: {self.kind}; allowed: no epsilon, a mean has none")
        return self

    def plain(self) -> dict[str, Any]:
        values = super().plain()
        return {key: values[key] for key in values if key != "epsilon" or Kind(self.kind).has_epsilon}


class Decoding(Section):
    """How completions are generated."""

    max_new_tokens: Count = plans.Decoding.max_new_tokens
    """Longest completion, in tokens."""
    top_k: Count = plans.Decoding.top_k
    """Draw from the k likeliest tokens; 1 is greedy decoding."""
    temperature: Number = plans.Decoding.temperature
    """Divides the logits before drawing."""
    samples: Count = plans.Decoding.samples
    """Completions per prompt; 1 for greedy decoding."""
    seed: Seed = plans.Decoding.seed
    """Seed of the draws."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("samples", "temperature"):
            if self.greedy and getattr(self, key) != 1:
                raise ValueError(
                    f"found {key}: {getattr(self, key)} with greedy decoding (top_k: 1); "
                    f"allowed: {key}: 1, or top_k of at least 2"
                )
        return self

    @property
    def greedy(self) -> bool:
        return self.top_k == 1


class Random(Section):
    """The controls: plans `random-N` and `matched-P`."""

    draws: Count = 5
    """Number of random head sets of each plan `random-N`."""
    matched: Count = 20
    """Number of draws of each plan `matched-P`, or all that exist where these are fewer. The smallest p-value that they
    can give is 1 / (1 + `matched`)."""
    seed: Seed = 0
    """Seed of the draws."""


class Speed(Section):
    """How fast jobs are, for estimates. It changes no result, but with `shards: auto` the number of jobs."""

    device: Literal["auto", "a100", "h100", "h200", "cpu"] = "auto"
    """The device to reckon with. `auto`: the CPU with `device: cpu`, else an A100; the estimate that is printed takes
    the CPU also where `device: auto` finds no GPU."""
    scoring: Number | None = None
    """Tera-operations per second that scoring achieves here: min. TFLOP / seconds of the variant `partial` of
    `benchmarks/scoring.py`."""
    generation: Number | None = None
    """The same of completions: the variant `packed` of `benchmarks/generation.py`."""
    start: Number | None = None
    """Seconds from the start of a job to the loading of its model."""


class Compute(Section):
    """Where and how the work is done."""

    device: Annotated[str, Matching(r"auto|cpu|cuda(?::\d+)?", "auto, cpu, cuda, or one GPU such as cuda:0")] = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU if there is one."""
    token_budget: Count = 8192
    """Tokens per batch; it sets the batch size. With `shards: auto`, a change may change their number."""
    shards: Shards = 1
    """Jobs that share the batches of one cell's completions. `auto`: as many as make jobs of about an hour by `speed`.
    More than there are batches is harmless: a job without one loads the model for nothing. A change makes all
    completions, and what follows, again."""
    speed: Speed = Speed()
    """How fast jobs are, to estimate their time. With `shards: auto`, set it before the first run."""
    threads: Count = 1
    """CPU threads of each job."""
    mixed: bool = False
    """Let `rates` compare cells that were made with another dtype, attention, kind of device, or version of torch or
    transformers. The page says so at the top."""


class Report(Section):
    """The HTML report."""

    title: Text = "Safety attention heads"
    """Title of the page."""


class Annotation(Section):
    """The sample of answers that people label: `snakemake annotation`."""

    size: Count = 200
    """How many answers are drawn, or all where there are fewer. Each stratum (condition, whether judges disagree,
    outcome) gets at least two of them, where it has so many."""
    seed: Seed = 0
    """Seed of the draw."""


class Utility(Section):
    """Accuracy on tasks with heads ablated, for studies with `experiment: utility`. Needs the extra `utility`."""

    tasks: Names = ["boolq", "rte", "winogrande", "arc_challenge", "openbookqa"]
    """Multiple-choice tasks of lm-evaluation-harness, asked without examples; unless set, those of the paper."""
    folder: Text | None = None
    """Folder of further tasks, YAML files of the harness, and of their data. A change of any file there asks again."""
    limit: Count | None = None
    """For a pilot: only the first so many items of each task."""
    batch_size: Count = 8
    """Questions with a choice each that are computed at once."""


class Study(Section):
    """One grid of measurements: every combination of the names listed."""

    experiment: ExperimentName | None = None
    """Make a table and a figure of this study alone, in `experiments/STUDY/`; `snakemake STUDY` makes nothing else.
    `asr`: rates of each plan; `doses`: by number of heads; `transfer`: by the data set that heads were chosen on;
    `parameters`: beside the share of parameters that changes;
    `maps`: without each head; `utility`: accuracy on tasks; `overlap`: of rankings of heads;
    `distribution`: of scores over heads; `hours`: that scores and answers took;
    `checkpoints`: each two of the models side by side, in the order in which they are listed."""
    models: Names
    """Names of models."""
    datasets: Names
    """Names of data sets."""
    templates: Names
    """Names of templates."""
    ablations: Names
    """Names of ablations."""
    plans: Names
    """Which heads are ablated, see Plans."""
    decodings: Names
    """Names of decodings."""
    judges: Names
    """Names of judges."""
    leaks: Literal["keep", "drop"] = "keep"
    """Queries on which the heads of a plan were chosen, in another data set than the measured one: `drop` leaves them
    out of the effects of this study's cells, also where another study has the same cells. They are counted always, and
    completions, verdicts and rates keep them."""
