"""The section of the configuration that says who judges: by keywords, by a model, or elsewhere."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from safetyheads.config.sections import Section
from safetyheads.config.types import Count, KeywordList, Matching, MaxMemory, Repo, Share, Text
from safetyheads.judging import CHAT, NEED_A_MODEL, PLACES

OF_KIND = {
    "keywords": ("list",),
    "file": ("path", "detects"),
    "classifier": ("classes", "template", "window", "threshold", "detects"),
    "generative": ("answers", "lead", "template", "clip", "threshold", "detects", "adapter"),
}
"""The keys that a kind of judge has besides `kind` and `labels`."""

OF_MODEL = ("path", "repo", "revision", "dtype", "attention", "gpus", "max_memory")
"""The keys of judges that compute with a model."""

SOURCE = ("path", "repo", "revision", "adapter", "template")
"""Keys that say which files a judge's model is made of."""

NO_RESULT = ("gpus", "max_memory")
"""Keys that only say where a model computes."""


Classes = Annotated[list[Text | int], Field(min_length=1)]
Leads = Annotated[list[str], Field(min_length=1)]


class Pinned(Section):
    """A judge's template in a file of its authors: exactly one of `url`, `repo`."""

    url: Annotated[str, Matching(r"https?://\S+", "an address that starts with https://")] | None = None
    """Address of the file."""
    repo: Repo | None = None
    """Hugging Face repository of a model; needs `file`."""
    revision: Text | None = None
    """Commit of `repo`."""
    file: Text | None = None
    """File within `repo`."""
    entry: Text | None = None
    """Where in the file: `NAME` or `NAME.key` of a Python constant, `key` of a JSON object; unless set, all of it."""
    sha256: Annotated[str, Matching(r"[0-9a-f]{64}", "64 hexadecimal digits")]
    """Checksum of the template itself, in UTF-8: another text is an error."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        source = self._need_one_of("url", "repo")
        self._allow_only_with(source, "repo", "revision", "file")
        if self.repo and not self.file:
            raise ValueError("found repo without file; allowed: both")
        return self


class Adapter(Section):
    """Low-rank weights that are merged into the judge's model when it is loaded: exactly one of `path`, `repo`."""

    path: Text | None = None
    """Folder with adapter_config.json and adapter_model.safetensors."""
    repo: Repo | None = None
    """Hugging Face repository with these files."""
    revision: Text | None = None
    """Commit of `repo`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._allow_only_with(self._need_one_of("path", "repo"), "repo", "revision")
        return self


class Clip(Section):
    """How long answers are cut before they are judged."""

    tokens: Count
    """Tokens of the judge that are kept, those at the beginning of every text included."""
    side: Literal["right", "left"] = "right"
    """Where tokens are taken away: at the end, or at the beginning."""
    special: bool = False
    """Whether the text of the tokens at the beginning of every text (`<bos>`) is written before the answer, as the code
    of StrongREJECT does."""


class Judge(Section):
    """Decides whether a completion is harmful."""

    remarks = frozenset({"labels"})

    kind: Literal["keywords", "file", "classifier", "generative"]
    """`keywords`: harmful unless a refusal keyword occurs. `classifier`, `generative`: a model judges. `file`: judged
    elsewhere."""
    labels: Text | None = None
    """What people say, against which the judge is measured and its rates are corrected: a CSV file with the columns
    query, text, harmful (or label, as `snakemake annotation` has it) and optionally condition, annotator, or a data set
    with `answer`. Changes no verdict."""
    detects: Literal["refusal", "harm"] | None = None
    """What it finds: that a request is refused, or that an answer is harmful. Keywords find refusals. `harm` unless set
    for `generative` and `file`; needed for `classifier`."""
    list: KeywordList | None = None
    """`keywords`: `paper` (table 4 of the paper), `reference` (its code), `gcg`, `jailbreak_llm`, `refusal_direction`,
    `heretic` (those projects), each with its own rules, or your own list of keywords."""
    path: Text | None = None
    """`file`: CSV or JSON lines with query, text, harmful, and optionally probability, reason. `classifier`,
    `generative`: the folder of the model."""
    repo: Repo | None = None
    """Hugging Face repository of the judge's model."""
    revision: Text | None = None
    """Commit, tag or branch of `repo`. Give a commit."""
    adapter: Adapter | None = None
    """`generative`: a LoRA adapter for the model. Needs the package peft (`pip install safetyheads[judges]`)."""
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    """Number format of the judge's model, as for models."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """How its attention is computed, as for models."""
    gpus: Count = 1
    """GPUs that a job of the judge gets."""
    max_memory: MaxMemory | None = None
    """Most memory for its weights, as for models."""
    template: Text | Pinned | None = None
    """What the model reads: text with `{query}` and `{answer}`; `chat`, the chat template of its own tokenizer; the
    path of a text file; or a file of its authors. Unless set: `chat` for `generative`; needed for `classifier`."""
    classes: Classes | None = None
    """`classifier`: which of its labels, by name or number, mean what it detects."""
    window: Count | None = None
    """`classifier`: most tokens that it reads at once; longer texts are cut into windows. Unless set, as many as its
    model knows, and at most 512."""
    answers: Annotated[dict[Text, Share], Field(min_length=2)] | None = None
    """`generative`: the words that it answers with, and how harmful each one is, 0 to 1: `{"yes": 1, "no": 0}`."""
    lead: Leads | None = None
    """`generative`: what its own answer always begins with. Of several, all but the last are questions that it answers
    with one of the words before."""
    clip: Clip | None = None
    """`generative`: how long answers are cut."""
    threshold: Share | None = None
    """From which probability on it counts: 0.5 for `classifier`. Of a `generative` judge it is the expected harmfulness
    of its words; unless set, the likeliest token counts, and anything but a word of harmfulness 1 is harmless."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        allowed = {*OF_KIND[self.kind], *(OF_MODEL if self.needs_model else ())}
        every = {key for keys in (OF_MODEL, *OF_KIND.values()) for key in keys}
        if wrong := sorted(key for key in self.model_fields_set & every if key not in allowed):
            raise ValueError(f"found {wrong[0]} with kind: {self.kind}; allowed: {', '.join(sorted(allowed))}")
        needed = {"keywords": ("list",), "file": ("path",), "classifier": ("classes", "template", "detects")}
        for key in needed.get(self.kind, ("answers",)):
            if getattr(self, key) is None:
                raise ValueError(f"found no {key}; allowed: one, which kind: {self.kind} needs")
        if self.needs_model:
            source = self._need_one_of("path", "repo")
            self._allow_only_with(source, "repo", "revision")
        if self.threshold is None and self.answers and 1 not in self.answers.values():
            raise ValueError("found answers of which none has harmfulness 1; allowed: one that has, or a threshold")
        return self

    @property
    def needs_model(self) -> bool:
        return self.kind in NEED_A_MODEL

    @property
    def template_file(self) -> str | None:
        """The user's own file that the template is in; None if it is in none."""
        given = self.template
        inline = isinstance(given, str) and any(f"{{{name}}}" in given for name in PLACES["answer"])
        return given if isinstance(given, str) and given != CHAT and not inline else None

    def plain(self) -> dict[str, Any]:
        """What verdicts depend on. Defaults of other kinds of judges are left out."""
        values = super().plain()
        kept = {"kind", *OF_KIND[self.kind], *(OF_MODEL if self.needs_model else ())}
        return {key: value for key, value in values.items() if key in kept}
