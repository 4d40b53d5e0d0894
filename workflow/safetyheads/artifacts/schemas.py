"""The public contract: where the artefact of each stage lies, what one row of it is, and its columns.

Rules, results/README.md and the files themselves take it from here. A path's keys, in braces, are also the first
columns of the file. Importing this module loads no pyarrow, as every job's plan reads it.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2


class Stage(NamedTuple):
    """`path` is under results/; `columns`, separated by spaces, follow those of the path's keys, other files have none.

    `about` says in a few words what a column holds where its name does not, or, of other files, what the file does.
    """

    path: str
    row: str = ""
    columns: str = ""
    about: dict[str, str] | str = ""


_CELL = "{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}"
STAGES: dict[str, Stage] = {
    "datasets": Stage(
        "datasets/{dataset}.parquet",
        "a query",
        "query_id query category target",
        {"query_id": "`{dataset}-0007`, from 0, in file order"},
    ),
    "models": Stage(
        "models/{model}.json",
        about="class, layers, heads, key/value heads, context length, end-of-sequence ids, revision, sha256 of each "
        "file. The demo's weights are in `models/{model}/`",
    ),
    "prompts": Stage("prompts/{model}/{dataset}/{template}.parquet", "a prompt", "query_id text token_ids"),
    "ships": Stage(
        "ships/{model}/{dataset}/{template}/{ablation}.parquet",
        "prompt x head",
        "query_id layer head score",
        {"score": "nats"},
    ),
    "sahara": Stage(
        "sahara/{model}/{dataset}/{template}/{ablation}.parquet",
        "step x head",
        "step layer head score selected",
        {"step": "from 1", "score": "degrees", "selected": "a head chosen in an earlier step has no row later"},
    ),
    "completions": Stage(
        f"completions/{_CELL}.parquet",
        "a completion",
        "query_id variant heads sample text token_ids n_tokens finish_reason",
        {"heads": "ablated: list of layer, head", "token_ids": "the new ones", "finish_reason": "`eos`, `length`"},
    ),
    "verdicts": Stage(
        f"verdicts/{_CELL}/{{judge}}.parquet",
        "a verdict",
        "query_id variant sample harmful probability reason",
        {"probability": "null where the judge goes by rules"},
    ),
    "rates": Stage(
        "rates.parquet",
        "a cell of the study",
        "model dataset template ablation plan decoding judge variant n harmful asr low high delta p_value p_adjusted",
        {
            **{"n": "prompts", "harmful": "prompts; for several samples the sum of their shares"},
            **{"high": "Wilson, 95 %", "delta": "to the plain model", "p_value": "exact sign test"},
            "p_adjusted": "Holm, over the heads of `single`",
        },
    ),
    "report": Stage("report/index.html", about="one page, no other files needed"),
}

_TYPES = {
    **dict.fromkeys(("layer", "head", "step"), "int16"),
    **dict.fromkeys(("sample", "n_tokens"), "int32"),
    **dict.fromkeys(("score", "probability", "asr", "low", "high", "delta", "p_value", "p_adjusted"), "float64"),
    **{"n": "int64", "selected": "bool", "token_ids": "tokens", "heads": "heads"},
}
"""Type of a column by its name; all others are text. `harmful` is true or false, but a number in rates."""


def keys(stage: str) -> list[str]:
    """The keys of a stage's path, in order: the first columns of its files."""
    return re.findall(r"{(\w+)}", STAGES[stage].path)


def schema(stage: str) -> "pa.Schema":
    """The columns of a stage's files, those of the path's keys first."""
    import pyarrow as pa

    lists = {"tokens": pa.list_(pa.int32()), "heads": pa.list_(pa.struct({"layer": pa.int16(), "head": pa.int16()}))}
    types = _TYPES | {"harmful": "float64" if stage == "rates" else "bool"}
    names = [*keys(stage), *STAGES[stage].columns.split()]
    kinds = {name: types.get(name, "string") for name in names}
    return pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in kinds.items()])


def table() -> str:
    """The table of results/README.md, as Markdown; this module, when it is run, prints it."""
    lines = ["| path | one row is | further columns |", "|---|---|---|"]
    for stage in STAGES.values():
        about = stage.about if isinstance(stage.about, dict) else {}
        words = (f"{name} ({about[name]})" if name in about else name for name in stage.columns.split())
        lines.append(f"| `{stage.path}` | {stage.row} | {', '.join(words) or stage.about} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
