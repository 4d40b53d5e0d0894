"""Types of the configuration's values: names, numbers, lists of heads. Each error says what is found and allowed."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from safetyheads.config.hints import path_hint
from safetyheads.data_files import FORMAT_NAMES
from safetyheads.demo.organisms import ORGANISMS
from safetyheads.errors import nearest
from safetyheads.experiments import EXPERIMENTS
from safetyheads.heads import Kind, parse_head
from safetyheads.plans import PLAIN, RESERVED, like_a_plan
from safetyheads.templates import DATE, DATE_FORMAT


@dataclass(frozen=True)
class Matching:
    """Text that matches `pattern` as a whole; `meaning` says so in words."""

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"pattern": f"^(?:{self.pattern})$"}

    def check(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"found {text!r}; allowed: {self.meaning}")
        return text


def _places(value: Any) -> Any:
    wrong = (
        [key for key in value if key != "cpu" and not (type(key) is int and key >= 0)]
        if isinstance(value, dict)
        else []
    )
    if wrong:
        raise ValueError(f"found memory of {wrong[0]!r}; allowed: cpu, or the number of a GPU, from 0")
    return value


def _number(value: Any) -> Any:
    """YAML reads 1e-5 as text and 1.0e-5 as a number: take both."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _different(names: list[str]) -> list[str]:
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"found {', '.join(map(repr, twice))} more than once; allowed: each name once")
    return names


def _date(value: Any) -> Any:
    """A day, as YAML reads `2024-07-26`, or as text in that or in the other form, in the one form."""
    if type(value) is date:
        return value.strftime(DATE_FORMAT)
    for form in (DATE_FORMAT, "%Y-%m-%d"):
        try:
            return datetime.strptime(value, form).strftime(DATE_FORMAT)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"found {value!r}; allowed: a day such as {DATE} or 2024-07-26")


def _chat(value: Any) -> Any:
    """True, or arguments for the chat template. Those that the pipeline itself gives are refused."""
    if value is True or (isinstance(value, dict) and all(isinstance(key, str) for key in value)):
        if taken := sorted(_TAKEN & set(value or ()) if isinstance(value, dict) else ()):
            raise ValueError(f"found {taken[0]} in chat; allowed: arguments that the pipeline does not give itself")
        return value or True
    raise ValueError(
        f"found chat: {value!r}; allowed: chat: true, or arguments of the chat template, such as "
        "chat: {enable_thinking: false}, or text instead of chat"
    )


_TAKEN = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs", "sanitize_control_tokens", "strftime_now"),
    }
)
"""What a chat template is given besides the arguments of the configuration."""


def _folder(path: str) -> str:
    """The path without slashes at its end, if it is one that all jobs understand alike."""
    if hint := path_hint(path):
        raise ValueError(f"found {path!r}; allowed: the path of a folder, without variables{hint}")
    return path.rstrip("/")


def _no_plan(name: str) -> str:
    """Raise ValueError if `name` is that of a plan, or begins like one."""
    if like_a_plan(name):
        raise ValueError(
            f"found {name!r}; allowed: a name that is not a built-in plan and does not begin like one "
            f"({', '.join(RESERVED)}, alone or before '-')"
        )
    return name


def _not_plain(name: str) -> str:
    if name.casefold() == PLAIN:
        raise ValueError(f"found {name!r}; allowed: another name, `{PLAIN}` is the model without ablation")
    return name


Name = Annotated[
    str,
    Matching(
        r"(?!.*\.(?:json|parquet)$)[A-Za-z0-9][A-Za-z0-9._-]*",
        "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit and does not end in '.json' "
        "or '.parquet' (names become file names)",
    ),
]
AblationName = Annotated[Name, AfterValidator(_not_plain)]
HeadSetName = Annotated[Name, AfterValidator(_no_plan)]
Number = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1, strict=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Date = Annotated[str, BeforeValidator(_date, json_schema_input_type=str)]
ChatArguments = Annotated[
    Literal[True] | dict[str, Any],
    BeforeValidator(_chat),
    WithJsonSchema({"anyOf": [{"const": True}, {"type": "object"}]}),
]
Text = Annotated[str, Matching(r"[\s\S]*\S[\s\S]*", "text that is not empty")]
Folder = Annotated[
    str,
    AfterValidator(_folder),
    Matching(r"(?!~)[^{}]*[^{}/\s]", "the path of a folder, without '{' and '}': Snakemake gives them a meaning"),
]
Repo = Annotated[
    str,
    Matching(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", "a Hugging Face repository, such as 'organisation/name'"),
]
_SIZE = r"\d+(?:\.\d+)? ?[KMGT]?i?B"
MemorySize = Annotated[str, Matching(_SIZE, "a size, such as 20GiB or 500MB")]
_MEMORY_SCHEMA = {"type": "string", "pattern": rf"^(?:{_SIZE})$"}
MaxMemory = Annotated[
    dict[Annotated[int, Field(ge=0)] | Literal["cpu"], MemorySize],
    Field(min_length=1),
    BeforeValidator(_places),
    WithJsonSchema(
        {"type": "object", "propertyNames": {"pattern": r"^(?:\d+|cpu)$"}, "additionalProperties": _MEMORY_SCHEMA}
    ),
]
HeadName = Annotated[
    str,
    Matching(r"L\d+H\d+", "a head, such as L02H26 (layer 2, head 26)"),
    AfterValidator(lambda name: str(parse_head(name))),
]
HeadNames = Annotated[
    list[HeadName], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_different)
]
if TYPE_CHECKING:
    KindName = str
    OrganismName = str
    FormatName = str
    ExperimentName = str
else:
    KindName = Literal[tuple(kind.value for kind in Kind)]
    OrganismName = Literal[tuple(ORGANISMS)]
    FormatName = Literal[FORMAT_NAMES]
    ExperimentName = Literal[tuple(EXPERIMENTS)]
Names = Annotated[list[str], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_different)]


ListName = Literal["paper", "reference", "gcg", "jailbreak_llm", "refusal_direction", "heretic"]
"""The built-in lists of keywords. Each is a judge as well, of the same name."""


def _keywords(value: Any) -> Any:
    known = get_args(ListName)
    if isinstance(value, list) and (guessed := [v for v in value if not isinstance(v, str)]):
        raise ValueError(f"found {value!r}; allowed: a list of keywords. YAML reads {guessed[0]!r}, no text: quote it")
    if value in known or (isinstance(value, list) and value and all(isinstance(v, str) and v.strip() for v in value)):
        return value
    raise ValueError(
        f"found {value!r}; allowed: {', '.join(known)}, or a list of keywords such as [I cannot, Sorry]."
        f"{nearest(str(value), known)}"
    )


KeywordList = Annotated[ListName | Annotated[list[Text], Field(min_length=1)], BeforeValidator(_keywords)]


def _shards(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    close = nearest(value, ["auto"]) if isinstance(value, str) else ""
    raise ValueError(f"found {value!r}; allowed: a whole number of at least 1, or auto.{close}")


Shards = Annotated[Literal["auto"] | Count, BeforeValidator(_shards)]
