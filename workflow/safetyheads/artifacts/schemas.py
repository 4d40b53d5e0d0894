"""The public contract: where the artefact of each stage lies, what one row of it is, and its columns.

Rules, results/README.md and the files themselves take it from here. A path's keys, in braces, are also the first
columns of the file. Importing this module loads no pyarrow, as every job's plan reads it.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2

_CELL = "{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}"


class Column(NamedTuple):
    """A type, as `schema` knows it, and a few words for results/README.md."""

    type: str
    about: str = ""


class Stage(NamedTuple):
    """`path` is under results/; `columns` follow those of the path's keys. Other files than parquet have none."""

    path: str
    row: str
    columns: dict[str, Column]
    about: str = ""


STAGES: dict[str, Stage] = {
    "datasets": Stage(
        "datasets/{dataset}.parquet",
        "a query",
        {
            "query_id": Column("text", "`{dataset}-0007`, from 0, in file order"),
            "query": Column("text"),
            "category": Column("text"),
            "target": Column("text"),
        },
    ),
    "models": Stage(
        "models/{model}.json",
        "",
        {},
        "class, layers, heads, key/value heads, context length, end-of-sequence ids, revision, sha256 of each file. "
        "The demo's weights are in `models/{model}/`",
    ),
    "prompts": Stage(
        "prompts/{model}/{dataset}/{template}.parquet",
        "a prompt",
        {"query_id": Column("text"), "text": Column("text"), "token_ids": Column("tokens")},
    ),
    "ships": Stage(
        "ships/{model}/{dataset}/{template}/{ablation}.parquet",
        "prompt x head",
        {
            "query_id": Column("text"),
            "layer": Column("int16"),
            "head": Column("int16"),
            "score": Column("float64", "nats"),
        },
    ),
    "sahara": Stage(
        "sahara/{model}/{dataset}/{template}/{ablation}.parquet",
        "step x head",
        {
            "step": Column("int16", "from 1"),
            "layer": Column("int16"),
            "head": Column("int16"),
            "score": Column("float64", "degrees"),
            "selected": Column("bool", "a head chosen in an earlier step has no row later"),
        },
    ),
    "completions": Stage(
        f"completions/{_CELL}.parquet",
        "a completion",
        {
            "query_id": Column("text"),
            "variant": Column("text"),
            "heads": Column("heads", "ablated: list of layer, head"),
            "sample": Column("int32"),
            "text": Column("text"),
            "token_ids": Column("tokens", "the new ones"),
            "n_tokens": Column("int32"),
            "finish_reason": Column("text", "`eos`, `length`"),
        },
    ),
    "verdicts": Stage(
        f"verdicts/{_CELL}/{{judge}}.parquet",
        "a verdict",
        {
            "query_id": Column("text"),
            "variant": Column("text"),
            "sample": Column("int32"),
            "harmful": Column("bool"),
            "probability": Column("float64", "null where the judge goes by rules"),
            "reason": Column("text"),
        },
    ),
    "rates": Stage(
        "rates.parquet",
        "a cell of the study",
        {
            **dict.fromkeys(re.findall(r"{(\w+)}", f"{_CELL}{{judge}}"), Column("text")),
            "variant": Column("text"),
            "n": Column("int64", "prompts"),
            "harmful": Column("float64", "prompts; for several samples the sum of their shares"),
            "asr": Column("float64"),
            "low": Column("float64"),
            "high": Column("float64", "Wilson, 95 %"),
            "delta": Column("float64", "to the plain model"),
            "p_value": Column("float64", "exact sign test"),
            "p_adjusted": Column("float64", "Holm, over the heads of `single`"),
        },
    ),
    "report": Stage("report/index.html", "", {}, "one page, no other files needed"),
}


def keys(stage: str) -> list[str]:
    """The keys of a stage's path, in order: the first columns of its files."""
    return re.findall(r"{(\w+)}", STAGES[stage].path)


def schema(stage: str) -> "pa.Schema":
    """The columns of a stage's files, those of the path's keys first."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "tokens": pa.list_(pa.int32()),
        "heads": pa.list_(pa.struct({"layer": pa.int16(), "head": pa.int16()})),
        "bool": pa.bool_(),
    }
    columns = dict.fromkeys(keys(stage), "text") | {name: column.type for name, column in STAGES[stage].columns.items()}
    return pa.schema([(name, types.get(type_) or pa.type_for_alias(type_)) for name, type_ in columns.items()])


def table() -> str:
    """The table of results/README.md, as Markdown; this module, when it is run, prints it."""
    lines = ["| path | one row is | further columns |", "|---|---|---|"]
    for stage in STAGES.values():
        words = (f"{name} ({column.about})" if column.about else name for name, column in stage.columns.items())
        lines.append(f"| `{stage.path}` | {stage.row} | {', '.join(words) or stage.about} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
