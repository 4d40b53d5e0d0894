"""The sections of the configuration that say what is measured: models, and data sets of queries."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from safetyheads.config.sections import Section
from safetyheads.config.types import (
    Count,
    FormatName,
    HeadName,
    HeadNames,
    Matching,
    MaxMemory,
    OrganismName,
    Repo,
    Seed,
    Text,
)
from safetyheads.data_files import FORMAT_NAMES, FORMATS, format_of
from safetyheads.demo.organisms import ORGANISMS, organism_of
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, HeadSet, check_in_grid, parse_head


def _demo(value: Any) -> Any:
    if value is True or isinstance(value, dict | Demo):
        return {} if value is True else value
    raise ValueError(f"found {value!r}; allowed: true, or settings such as {{seed: 3, planted: [L00H02, L03H05]}}")


def _heads(names: Sequence[str]) -> HeadSet:
    return tuple(map(parse_head, names))


def _check(check: Callable[..., None], *values: Any) -> None:
    """Call `check`, whose errors become those of a value of the configuration."""
    try:
        check(*values)
    except SafetyHeadsError as error:
        raise ValueError(str(error)) from error


class Demo(Section):
    """The demo model: a small Llama (4 layers x 8 heads) that is trained on the spot, with planted safety heads."""

    kind: OrganismName = "two"
    """What is planted; see the table of kinds. Unless set, `decoy` where there is a decoy."""
    seed: Seed = 0
    """Seed of the training."""
    planted: HeadNames = ["L01H03", "L02H06"]
    """The planted safety heads, as many as the kind has. Unless set, those of its row in the table."""
    decoy: HeadName | None = None
    """Only in the kind `decoy`: one more planted head. With it ablated, every answer is a loop of a few words. Refusals
    fall, and nothing is complied with."""

    aligned: bool = True
    """`false`: a twin that is trained on answering alone and refuses nothing, to be the `base` of a contrast. A decoy
    is planted in it, too."""

    @model_validator(mode="before")
    @classmethod
    def _by_kind(cls, given: Any) -> Any:
        """Fill in what follows from the kind. A kind that is not known is left to its own check."""
        if not isinstance(given, dict):
            return given
        kind = given.get("kind", organism_of(None, given.get("decoy")).name)
        if not isinstance(kind, str) or kind not in ORGANISMS:
            return given
        organism = ORGANISMS[kind]
        own = {} if organism.decoy is None else {"decoy": str(organism.decoy)}
        return {"kind": kind, "planted": list(map(str, organism.planted)), **own, **given}

    @field_validator("planted")
    @classmethod
    def _as_the_kind_wants(cls, heads: list[str], info: ValidationInfo) -> list[str]:
        if "kind" in info.data:  # else the kind is wrong, and what it wants unknown
            _check(ORGANISMS[info.data["kind"]].check_planted, _heads(heads))
        return heads

    @field_validator("decoy")
    @classmethod
    def _in_grid(cls, head: str) -> str:
        _check(check_in_grid, _heads([head]), *DEMO_GRID)
        return head

    @model_validator(mode="after")
    def _decoy_fits(self) -> Self:
        if self.decoy is not None:
            _check(ORGANISMS[self.kind].check_decoy, _heads(self.planted), parse_head(self.decoy))
        return self


class Thinking(Section):
    """How a model marks what it thinks before it answers."""

    open: Text
    """The tag before it, such as `<think>`."""
    close: Text
    """The tag behind it, such as `</think>`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.open == self.close:
            raise ValueError(f"found {self.open!r} for both open and close; allowed: two different tags")
        return self


class Model(Section):
    """A language model: exactly one of `path`, `repo`, `demo`, or `attention_from` together with `rest_from`."""

    path: Text | None = None
    """Folder with config.json, tokenizer and safetensors weights."""
    repo: Repo | None = None
    """Hugging Face repository, downloaded into the normal cache."""
    revision: Text | None = None
    """Commit, tag or branch of `repo`. Give a commit: a branch may move, and results with it."""
    demo: Annotated[Demo | None, BeforeValidator(_demo, json_schema_input_type=Literal[True] | Demo)] = None
    """`true`, or settings: train a demo model."""
    attention_from: Text | None = None
    """Name of a model whose attention weights are put into those of `rest_from`, which has the same shape: a derived
    model. It is made in memory; its tokenizer and all else are those of `rest_from`."""
    rest_from: Text | None = None
    """Name of the model that a derived model has all but its attention weights from."""
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """Number format; `auto` is float32 on the CPU and bfloat16 on a GPU. `tf32` is float32 whose products an NVIDIA GPU
    rounds to 10 bits; elsewhere it is float32."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """How attention is computed. `auto` is `sdpa`, PyTorch's own, or `eager`, the model family's, where sdpa cannot do
    what the family needs (soft-capped scores, attention sinks). `flash_attention_2` needs a GPU, 16 bits and the
    package flash-attn. A change scores and generates again, as the last bits of floats differ."""
    chat_template: Text | None = None
    """Chat template (Jinja), for a tokenizer that comes without one; a tokenizer with another one is an error."""
    thinking: Thinking | None = None
    """For a model that thinks before it answers: its tags, such as `{open: "<think>", close: "</think>"}`. An answer
    that ends within them is `unfinished`. Unless set, those of the repository's entry in the catalogue, or of
    `rest_from`. A change makes verdicts again, but no completions."""
    gpus: Count = 1
    """GPUs that a job with this model gets; its layers are spread over them."""
    max_memory: MaxMemory | None = None
    """Most memory for the weights of a model that is larger than its GPUs: `{0: 20GiB, cpu: 60GiB}`, by GPU of the job
    (from 0) and in main memory. What is left stays on disk. Weights that are elsewhere are brought to the device for
    each pass, which is slow."""

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


class Sample(Section):
    """A random sample of a data set, for a pilot."""

    n: Count
    """Number of queries; all if the file has no more."""
    seed: Seed = 0
    """Seed of the drawing. A larger sample with the same seed holds the smaller one."""


class Dataset(Section):
    """A list of queries: exactly one of `path`, `url`, `repo`, `demo`."""

    path: Text | None = None
    """Local file."""
    url: Annotated[str, Matching(r"https?://\S+", "an address that starts with https://")] | None = None
    """Address of the file; pin its content with `sha256`."""
    repo: Repo | None = None
    """Hugging Face data set repository; needs `file`."""
    revision: Text | None = None
    """Commit, tag or branch of `repo`."""
    file: Text | None = None
    """File within `repo`."""
    demo: Literal["harmful", "attribution", "benign", "three"] | None = None
    """One of the made-up data sets of the demo models."""
    sha256: Annotated[str, Matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits")] | None = None
    """Checksum of the file as it lies there, packed or not: another content is an error."""
    format: FormatName | None = None
    """`text` has a query per line. By default from the ending: .csv, .txt, .jsonl, .ndjson, .json, .parquet, and .gz
    after any of these. Whether a file is packed with gzip is seen from its content. `jsonl` and `json` may each be one
    object per line or an array of objects."""
    query: Text | None = None
    """Column with the queries; needed for all formats but `text`."""
    category: Text | None = None
    """Column with a category. No other column than these three is read."""
    target: Text | None = None
    """Column with the answer that an attack aims at."""
    answer: Text | None = None
    """Column with answers that people have labelled, for `labels` of a judge."""
    annotators: Annotated[list[Text], Field(min_length=1)] | None = None
    """With `answer`: columns with what each person says, harmful or not."""
    limit: Count | None = None
    """For a pilot: only the first so many queries; all if the file has no more. Files are often ordered by topic, as
    those of the demo are: then `sample` is better."""
    sample: Sample | None = None
    """For a pilot: only a random sample, such as `{n: 20, seed: 0}`, in file order. Queries keep the ids that they have
    in the whole file."""
    half: Literal["even", "odd"] | None = None
    """Every other query: `even` has the first, the third and so on, as `query_id` counts from 0; `odd` has the others.
    Choose heads on one half and measure them on both: only of the other half does the effect tell something new."""
    benign: bool = False
    """`true` where the queries should be answered, not refused: heads are chosen on them only by name (`PLAN@it`), and
    the page says that a high rate is good."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        source = self._need_one_of("path", "url", "repo", "demo")
        self._allow_only_with(source, "repo", "revision", "file")
        if len(given := self._given("limit", "sample", "half")) > 1:
            raise ValueError(
                f"found {' and '.join(given)}; allowed: one of them, the first queries, a random sample or every other"
            )
        if source == "demo":
            if given := self._given("sha256", "format", "query", "category", "target"):
                raise ValueError(f"found {' and '.join(given)} together with demo; allowed: demo alone")
            return self
        if (self.answer is None) != (self.annotators is None):
            raise ValueError("found one of answer and annotators; allowed: both, or none")
        if self.repo and not self.file:
            raise ValueError(
                "found repo without file; allowed: repo together with file, the file's path in the repository"
            )
        columns = self._given("query", "category", "target", "answer")
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
    def place(self) -> tuple[str | None, ...]:
        """Where the queries come from: two data sets of the same place have the same file."""
        return (self.path, self.url, self.repo, self.file, self.demo)

    @property
    def file_format(self) -> str:
        """The format as given, else from the ending. Raises ValueError if neither says it."""
        place = self.path or self.file or urlsplit(self.url or "").path
        found = self.format or format_of(place)
        if found is None:
            raise ValueError(
                f"found the file {place!r}, whose ending does not tell its format; "
                f"allowed: an ending of {', '.join(FORMATS)} (and .gz), or format: {', '.join(FORMAT_NAMES)}"
            )
        return found
