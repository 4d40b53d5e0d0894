"""The sections of the configuration, one class each. Documentation and JSON schema are made from these classes.

Values are strict: a number is not read as text, nor `true` as 1. Errors say what was found and what is allowed.
"""

from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from safetyheads.config_types import (
    Count,
    HeadPair,
    KeywordList,
    Matching,
    MaxMemory,
    Names,
    Number,
    Repo,
    Seed,
    Shards,
    Text,
)
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import check_in_grid, parse_head

DEMO_GRID = (4, 8)
"""Layers and heads of the demo model."""

FORMATS = {".csv": "csv", ".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""File ending -> format of a data set."""

MEAN_KINDS = ("mean_query", "mean_key", "mean_output")


class Section(BaseModel):
    """A mapping of the configuration: unknown keys and empty values are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    remarks: ClassVar[frozenset[str]] = frozenset()
    """Keys that describe and change no result."""

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


def _demo(value: Any) -> Any:
    if value is True or isinstance(value, dict | Demo):
        return {} if value is True else value
    raise ValueError(f"found {value!r}; allowed: true, or settings such as {{seed: 3, planted: [L00H02, L03H05]}}")


class Demo(Section):
    """The demo model: a small Llama (4 layers x 8 heads) that is trained on the spot, with two planted safety heads."""

    seed: Seed = Field(default=0, description="Seed of the training.")
    planted: HeadPair = Field(default=["L01H03", "L02H06"], description="The two planted safety heads, A first.")

    @field_validator("planted")
    @classmethod
    def _in_grid(cls, planted: list[str]) -> list[str]:
        try:
            check_in_grid(map(parse_head, planted), *DEMO_GRID)
        except SafetyHeadsError as error:
            raise ValueError(str(error)) from error
        return planted


class Model(Section):
    """A language model: exactly one of `path`, `repo`, `demo`, or `attention_from` together with `rest_from`."""

    path: Text | None = Field(default=None, description="Folder with config.json, tokenizer and safetensors weights.")
    repo: Repo | None = Field(default=None, description="Hugging Face repository, downloaded into the normal cache.")
    revision: Text | None = Field(
        default=None,
        description="Commit, tag or branch of `repo`. Give a commit: a branch may move, and results with it.",
    )
    demo: Annotated[Demo | None, BeforeValidator(_demo, json_schema_input_type=Literal[True] | Demo)] = Field(
        default=None, description="`true`, or settings: train the demo model."
    )
    attention_from: Text | None = Field(
        default=None,
        description="Name of a model whose attention weights are put into those of `rest_from`, which has the same "
        "shape: a derived model. It is made in memory; its tokenizer and all else are those of `rest_from`.",
    )
    rest_from: Text | None = Field(
        default=None, description="Name of the model that a derived model has all but its attention weights from."
    )
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        default="auto",
        description="Number format; `auto` is float32 on the CPU and bfloat16 on a GPU. `tf32` is float32 whose "
        "products an NVIDIA GPU rounds to 10 bits; elsewhere it is float32.",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto",
        description="How attention is computed. `auto` is `sdpa`, PyTorch's own, or `eager`, the model family's, where "
        "sdpa cannot do what the family needs (soft-capped scores, attention sinks). `flash_attention_2` needs a GPU, "
        "16 bits and the package flash-attn. A change scores and generates again, as the last bits of floats differ.",
    )
    chat_template: Text | None = Field(
        default=None, description="Chat template (Jinja), used where the tokenizer comes without one."
    )
    gpus: Count = Field(default=1, description="GPUs that a job with this model gets; its layers are spread over them.")
    max_memory: MaxMemory | None = Field(
        default=None,
        description="Most memory for the weights of a model that is larger than its GPUs: `{0: 20GiB, cpu: 60GiB}`, by "
        "GPU of the job (from 0) and in main memory. What is left stays on disk. Weights that are elsewhere are "
        "brought to the device for each pass, which is slow.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        source = self._need_one_of("path", "repo", "demo", "rest_from")
        self._allow_only_with(source, "repo", "revision")
        self._allow_only_with(source, "rest_from", "attention_from")
        if source == "rest_from" and self.attention_from is None:
            raise ValueError("found rest_from without attention_from; allowed: both, the names of two models")
        if beyond := [key for key in self.max_memory or () if isinstance(key, int) and key >= self.gpus]:
            raise ValueError(
                f"found GPU {beyond[0]} in max_memory with gpus: {self.gpus}; allowed: cpu, and GPUs from 0 to "
                f"{self.gpus - 1}"
            )
        return self


class Dataset(Section):
    """A list of queries: exactly one of `path`, `url`, `repo`, `demo`."""

    path: Text | None = Field(default=None, description="Local file.")
    url: Annotated[str, Matching(r"https?://\S+", "an address that starts with https://")] | None = Field(
        default=None, description="Address of the file; pin its content with `sha256`."
    )
    repo: Repo | None = Field(default=None, description="Hugging Face data set repository; needs `file`.")
    revision: Text | None = Field(default=None, description="Commit, tag or branch of `repo`.")
    file: Text | None = Field(default=None, description="File within `repo`.")
    demo: Literal["harmful", "attribution", "benign"] | None = Field(
        default=None, description="One of the made-up data sets of the demo model."
    )
    sha256: Annotated[str, Matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits")] | None = Field(
        default=None, description="Checksum of the file: another content is an error."
    )
    format: Literal["csv", "text", "jsonl", "parquet"] | None = Field(
        default=None,
        description="`text` has a query per line. By default from the ending: .csv, .txt, .jsonl, .ndjson, .parquet.",
    )
    query: Text | None = Field(default=None, description="Column with the queries; needed for all formats but `text`.")
    category: Text | None = Field(default=None, description="Column with a category.")
    target: Text | None = Field(default=None, description="Column with the answer that an attack aims at.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        source = self._need_one_of("path", "url", "repo", "demo")
        self._allow_only_with(source, "repo", "revision", "file")
        if source == "demo":
            if given := self._given("sha256", "format", "query", "category", "target"):
                raise ValueError(f"found {' and '.join(given)} together with demo; allowed: demo alone")
            return self
        if self.repo and not self.file:
            raise ValueError(
                "found repo without file; allowed: repo together with file, the file's path in the repository"
            )
        columns = self._given("query", "category", "target")
        if self.file_format == "text" and columns:
            raise ValueError(
                f"found {' and '.join(columns)} for a text file; allowed: no columns, it has a query per line"
            )
        if self.file_format != "text" and not self.query:
            raise ValueError(
                f"found no query; allowed: query with the name of a column of this {self.file_format} file"
            )
        return self

    @property
    def file_format(self) -> str:
        """`csv`, `text`, `jsonl` or `parquet`, as given or from the ending. Raises ValueError if neither says it."""
        if self.format:
            return self.format
        place = self.path or self.file or urlsplit(self.url or "").path
        ending = PurePosixPath(place).suffix.lower()
        if ending not in FORMATS:
            raise ValueError(
                f"found the file {place!r}, whose ending does not tell its format; "
                f"allowed: an ending of {', '.join(FORMATS)}, or format: csv, text, jsonl or parquet"
            )
        return FORMATS[ending]


class Template(Section):
    """How a query becomes a prompt: exactly one of `text`, `chat`."""

    text: str | None = Field(default=None, description="Text with `{query}` where the query goes.")
    chat: bool | None = Field(default=None, description="`true`: the tokenizer's own chat template.")
    system: Text | None = Field(default=None, description="System prompt; only with `chat`.")
    prefill: str = Field(default="", description="Start of the answer, put behind the prompt.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chat is False:
            raise ValueError("found chat: false; allowed: chat: true, or text instead of chat")
        self._allow_only_with(self._need_one_of("text", "chat"), "chat", "system")
        if self.text is not None and "{query}" not in self.text:
            raise ValueError(
                f"found text {self.text!r} without {{query}}; allowed: text with {{query}} where the query goes"
            )
        return self


class AblationConfig(Section):
    """What happens to an ablated head."""

    kind: Literal["undifferentiated", "scaling", "mean_query", "mean_key", "mean_output"] = Field(
        description="`undifferentiated`: its attention becomes uniform; `scaling`: its output is scaled by epsilon; "
        "`mean_*`: its query, key or output is replaced by the mean of its layer."
    )
    epsilon: Number = Field(default=1e-5, description="Factor of `undifferentiated` and `scaling`; not for `mean_*`.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind in MEAN_KINDS and "epsilon" in self.model_fields_set:
            raise ValueError(f"found epsilon together with kind: {self.kind}; allowed: no epsilon, a mean has none")
        return self

    def plain(self) -> dict[str, Any]:
        values = super().plain()
        return {key: values[key] for key in values if key != "epsilon" or self.kind not in MEAN_KINDS}


class Decoding(Section):
    """How completions are generated."""

    max_new_tokens: Count = Field(default=128, description="Longest completion, in tokens.")
    top_k: Count = Field(default=1, description="Draw from the k likeliest tokens; 1 is greedy decoding.")
    temperature: Number = Field(default=1.0, description="Divides the logits before drawing.")
    samples: Count = Field(default=1, description="Completions per prompt; 1 for greedy decoding.")
    seed: Seed = Field(default=0, description="Seed of the draws.")

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


class Judge(Section):
    """Decides whether a completion is harmful."""

    kind: Literal["keywords"] = Field(description="`keywords`: harmful unless a refusal keyword occurs.")
    list: KeywordList = Field(
        description="`paper` (table 4 of the paper), `reference` (its code), or your own list of keywords."
    )


class Random(Section):
    """The control plans `random-N`."""

    draws: Count = Field(default=5, description="Number of random head sets per plan.")
    seed: Seed = Field(default=0, description="Seed of the draws.")


class Attribution(Section):
    """How heads are scored."""

    steps: Count = Field(
        default=3,
        description="Steps of Sahara: the largest N of `sahara-N`. Raising it re-runs Sahara and what uses it.",
    )
    rank: Count = Field(default=1, description="Number of left singular vectors that Sahara compares.")
    representation: Literal["final_norm", "residual"] = Field(
        default="final_norm", description="Hidden states after (`final_norm`) or before (`residual`) the final norm."
    )


class Speed(Section):
    """How fast jobs are, for estimates. It changes no result, but with `shards: auto` the number of jobs."""

    device: Literal["auto", "a100", "h100", "h200", "cpu"] = Field(
        default="auto",
        description="The device to reckon with. `auto`: the CPU with `device: cpu`, else an A100; the estimate that is "
        "printed takes the CPU also where `device: auto` finds no GPU.",
    )
    scoring: Number | None = Field(
        default=None,
        description="Tera-operations per second that scoring achieves here: min. TFLOP / seconds of the variant "
        "`partial` of `benchmarks/scoring.py`.",
    )
    generation: Number | None = Field(
        default=None,
        description="The same of completions: the variant `packed` of `benchmarks/generation.py`.",
    )
    start: Number | None = Field(
        default=None, description="Seconds from the start of a job to the loading of its model."
    )


class Compute(Section):
    """Where and how the work is done."""

    device: Annotated[str, Matching(r"auto|cpu|cuda(?::\d+)?", "auto, cpu, cuda, or one GPU such as cuda:0")] = Field(
        default="auto", description="`auto`, `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU if there is one."
    )
    token_budget: Count = Field(
        default=8192,
        description="Tokens per batch; it sets the batch size. With `shards: auto`, a change may change their number.",
    )
    shards: Shards = Field(
        default=1,
        description="Jobs that share the batches of one cell's completions. `auto`: as many as make jobs of about an "
        "hour by `speed`. More than there are batches is harmless: a job without one loads the model for nothing. A "
        "change makes all completions, and what follows, again.",
    )
    speed: Speed = Field(
        default=Speed(),
        description="How fast jobs are, to estimate their time. With `shards: auto`, set it before the first run.",
    )
    threads: Count = Field(default=1, description="CPU threads of each job.")


class Report(Section):
    """The HTML report."""

    title: Text = Field(default="Safety attention heads", description="Title of the page.")


class Study(Section):
    """One grid of measurements: every combination of the names listed."""

    models: Names = Field(description="Names of models.")
    datasets: Names = Field(description="Names of data sets.")
    templates: Names = Field(description="Names of templates.")
    ablations: Names = Field(description="Names of ablations.")
    plans: Names = Field(description="Which heads are ablated, see Plans.")
    decodings: Names = Field(description="Names of decodings.")
    judges: Names = Field(description="Names of judges.")
