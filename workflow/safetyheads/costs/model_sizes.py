"""How large models and data sets are, told by the catalogue, or by local files without loading them."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from safetyheads.config.catalogue import catalogue_dataset, catalogue_judge, catalogue_model
from safetyheads.config.load import Config
from safetyheads.config.local_models import local_grid, read_config, whole_number
from safetyheads.costs.flops import Shape
from safetyheads.data_files import read_rows
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID

DEMO = Shape(*DEMO_GRID, hidden=64, intermediate=96, vocabulary=512, kv_heads=8, tied=True)
TYPICAL_CHARACTERS = 85.0  # of a query


def model_shape(config: Config, name: str, folder: Path) -> Shape | None:
    """The dimensions of a model; None of a repository outside the catalogue, and where config.json does not say."""
    model = config.model(name)
    if model.path or model.demo:
        return local_shape(folder / model.path) if model.path else DEMO
    if model.rest_from:
        return model_shape(config, model.rest_from, folder)
    entry = catalogue_model(model.repo)
    return Shape(**entry.model_dump(include={field.name for field in fields(Shape)})) if entry else None


def sizes_of_heads(config: Config, names: Iterable[str]) -> dict[str, list[int]]:
    """For each model of known dimensions, the parameters of a head's slice of one projection and of the whole model."""
    shapes = {name: model_shape(config, name, Path()) for name in names}
    return {
        name: [shape.hidden * (shape.head_dim or shape.hidden // shape.heads), shape.parameters]
        for name, shape in shapes.items()
        if shape
    }


def judge_shape(config: Config, name: str, folder: Path) -> Shape | None:
    """The dimensions of a judge's model; None where neither its folder nor the catalogue says."""
    judge = config.judge(name)
    if judge.path:
        return local_shape(folder / judge.path)
    entry = catalogue_judge(judge.repo) or catalogue_model(judge.repo)
    return Shape(**entry.model_dump(include={field.name for field in fields(Shape)})) if entry else None


def local_shape(folder: Path) -> Shape | None:
    """The dimensions by config.json, as if each MLP had a gate, and each layer of a mixture of experts had experts."""
    grid, values = local_grid(folder), read_config(folder)
    hidden, vocabulary = whole_number(values, "hidden_size", "n_embd", "d_model"), whole_number(values, "vocab_size")
    if grid is None or hidden is None or vocabulary is None:
        return None
    experts = whole_number(values, "num_local_experts", "num_experts", "n_routed_experts") or 1
    used = min(experts, whole_number(values, "num_experts_per_tok", "experts_per_token") or 1)
    widths = ("moe_intermediate_size", "expert_intermediate_size", "intermediate_size", "ffn_dim", "n_inner")
    width = whole_number(values, *widths) or 4 * hidden
    kv_heads = whole_number(values, "num_key_value_heads", "num_kv_heads") or grid[1]
    tied, resting = values.get("tie_word_embeddings", True) is True, grid[0] * 3 * hidden * width * (experts - used)
    return Shape(*grid, hidden, width * used, vocabulary, kv_heads, whole_number(values, "head_dim"), tied, resting)


def query_count(config: Config, name: str, folder: Path) -> tuple[int, float] | None:
    """Number of queries of a data set and their mean length in characters; None if neither file nor catalogue says.

    Of a pilot (`limit`, `sample`, `half`) only its queries count, at the mean length of all.
    """
    data = config.dataset(name)
    entry = catalogue_dataset(data)
    if entry:
        found: tuple[int, float] | None = entry.rows, TYPICAL_CHARACTERS
    else:
        found = _counted(folder / data.path, data.file_format, data.query) if data.path else None
    if found is None:
        return None
    there = {None: found[0], "even": (found[0] + 1) // 2, "odd": found[0] // 2}[data.half]
    asked = data.limit or (data.sample.n if data.sample else there)
    return min(asked, there), found[1]


def _counted(path: Path, format: str, column: str | None) -> tuple[int, float] | None:
    try:
        if format == "parquet":
            from pyarrow.parquet import ParquetFile

            return ParquetFile(path).metadata.num_rows, TYPICAL_CHARACTERS
        name = column or "query"
        texts = [row.values[name] or "" for row in read_rows(path, format, {name}).rows]
        return len(texts), sum(map(len, texts)) / len(texts)
    except (SafetyHeadsError, OSError, ValueError, LookupError, TypeError, ArithmeticError):
        return None  # the rule `datasets` says what is wrong
