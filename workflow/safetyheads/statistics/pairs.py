"""What each prompt was answered with heads ablated, beside what the plain model answered to it in the same batch.

In low precision a model's answer depends a little on the batch it is computed in. So plans whose batches hold many sets
of heads also hold the plain row of each of their prompts: variants `plain`, `plain-1`, ... of that plan, which differ
only if batches do. The column `paired` of an ablated row names the plain one of its own batch. Rows of other plans have
none, and are compared with all samples of the prompt in the plain model's own cell.

A study of maps has millions of verdicts. So cells, queries and samples become numbers here, and tables of numbers are
joined by searching in sorted ones.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from safetyheads.errors import SafetyHeadsError
from safetyheads.plans import PLAIN, PLAIN_VARIANT

PLAN_KEYS = ["model", "dataset", "template", "ablation", "plan", "decoding", "judge"]
"""The keys of a cell of verdicts."""
CELL_KEYS = [*PLAN_KEYS, "variant"]
"""A row of rates is what agrees in these."""
PLAIN_KEYS = ["model", "dataset", "template", "decoding", "judge"]
"""Rows that agree in these are compared with the same cell of the plain model."""
PLAIN_CELL = {"ablation": PLAIN, "plan": "none", "variant": "none"}
"""The other keys of that cell."""

OUTCOMES = ("complied", "refused", "degenerate", "unfinished", "short", "other")
VALUES = ("asr", *OUTCOMES)
"""What is known of a prompt: how many of its samples have each outcome; for `asr`, that the judge calls harmful."""

COLUMNS = [*CELL_KEYS, "query_id", "sample", "harmful", "outcome", "paired"]
"""What is needed of verdicts."""

Key = tuple[str, ...]
"""The values of some keys: of `PLAN_KEYS`, where nothing else is said."""

Whole = NDArray[np.int64]


class Pairs(NamedTuple):
    """The prompts of all cells, each with the plain model's answers that it is compared with."""

    cells: pd.DataFrame
    """`CELL_KEYS`, a sorted row for each variant of a cell, but for the plain rows within the batches of a plan."""
    prompts: pd.DataFrame
    """A row for each of these and each of its prompts, in their order: `cell` (the row in `cells`), query_id, `size`
    (how many samples), `VALUES` (how many of them), plain_size, and plain_asr, plain_complied, ... (how many of
    those). The plain model's own cell is compared with itself."""


def plain_rows(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows of verdicts or completions are plain rows within the batches of a plan."""
    return (table["ablation"] != PLAIN) & table["variant"].str.fullmatch(PLAIN_VARIANT)


def names_own(names: pd.Series) -> NDArray[np.bool_]:
    """Which values of the column `paired` name a plain row of a batch; the others are null."""
    code, known = pd.factorize(names)
    own = [re.fullmatch(PLAIN_VARIANT, str(name)) is not None for name in known]
    found: NDArray[np.bool_] = np.array([*own, False])[code]  # the code of a null is -1, the last
    return found


def need(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Raise SafetyHeadsError if the table `name` lacks one of `columns`."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise SafetyHeadsError(f"The {name} lack the columns {', '.join(missing)}; found: {', '.join(table)}.")


def pairs(verdicts: pd.DataFrame) -> Pairs:
    """The prompts of all cells of the verdicts, each with the plain model's.

    `verdicts` has the columns `COLUMNS` (harmful is bool, paired null or a variant), and must include the plain
    model's. Raises SafetyHeadsError if columns are missing, fields are empty or a completion has two verdicts, if
    the plain model is missing, if a row names a plain one that is not there, and if a cell's prompts are not those of
    its plain model.
    """
    _check(verdicts)
    groups = verdicts.groupby(CELL_KEYS, observed=True, sort=False)
    cells = groups.size().index.to_frame(index=False).astype("str").sort_values(CELL_KEYS)
    rows = _Rows(verdicts, np.argsort(cells.index)[groups.ngroup().to_numpy()])
    cells = cells.reset_index(drop=True)
    own = names_own(verdicts["paired"]) & (cells["ablation"] != PLAIN).to_numpy()[rows.cell]
    partner = rows.find(_partners(cells, verdicts["paired"][own], rows.cell[own]), own)
    if (partner < 0).any():
        first = verdicts[own][partner < 0].iloc[0]
        raise SafetyHeadsError(
            f"Plan {first['plan']} (model {first['model']}, data set {first['dataset']}), variant {first['variant']}: "
            f"{first['query_id']}, sample {first['sample']}, is to be compared with variant {first['paired']} of that "
            "plan, which has no verdict on it. Judge the same prompts in both."
        )
    kept = ~plain_rows(cells).to_numpy()
    plain_of = _plain_cells(cells, kept)
    rows_kept = kept[rows.cell]
    place, group = np.unique(rows.prompt[rows_kept], return_inverse=True)
    of_own = group[own[rows_kept]]
    cell, query = np.divmod(place, len(rows.queries))
    size, with_own = np.bincount(group), np.bincount(of_own, minlength=len(place))
    there = _plain_prompts(cells, kept, plain_of, cell, query, rows.queries)

    table = {"cell": (np.cumsum(kept) - 1)[cell], "query_id": rows.queries[query], "size": size}
    table["plain_size"] = np.where(with_own > 0, size, size[there])
    for name, holds in _values(verdicts).items():
        table[name] = np.bincount(group, holds[rows_kept])
        in_batch = np.bincount(of_own, holds[partner], minlength=len(place))
        rest = (size - with_own) * table[name][there] / size[there]
        table[f"plain_{name}"] = np.where(with_own > 0, in_batch + rest, table[name][there])
    return Pairs(cells[kept].reset_index(drop=True), pd.DataFrame(table))


def shares(found: Pairs) -> dict[Key, pd.DataFrame]:
    """For each cell with ablated heads, by its values of `PLAN_KEYS`: a table with a row for each variant and prompt.

    The tables are indexed by variant and query_id. Their columns are `VALUES`, the same of the plain rows that they are
    paired with (`plain_complied`, ...), all shares of the samples, and samples, how many there are.
    """
    prompts = found.prompts
    of_plan = found.cells.groupby(PLAN_KEYS, sort=False).ngroup().to_numpy()[prompts["cell"]]
    ablated = (found.cells["ablation"] != PLAIN).to_numpy()[prompts["cell"]]
    values = {name: prompts[name] / prompts["size"] for name in VALUES}
    values |= {f"plain_{name}": prompts[f"plain_{name}"] / prompts["plain_size"] for name in VALUES}
    variant = found.cells["variant"].to_numpy()[prompts["cell"]]
    index = pd.MultiIndex.from_arrays([variant, prompts["query_id"]], names=["variant", "query_id"])
    table = pd.DataFrame({**values, "samples": prompts["size"]}).set_axis(index)[ablated]
    return {
        tuple(found.cells.loc[prompts["cell"][ablated].iloc[at[0]], PLAN_KEYS]): table.iloc[at]
        for at in table.groupby(of_plan[ablated], sort=False).indices.values()
    }


class _Rows:
    """The rows of verdicts, by numbers for cells, queries and samples."""

    def __init__(self, verdicts: pd.DataFrame, cell: Whole) -> None:
        self.cell = cell
        query, queries = pd.factorize(verdicts["query_id"], sort=True)
        sample, samples = pd.factorize(verdicts["sample"])
        self.queries = np.asarray(queries, dtype=object)
        self.query, self.sample, self.samples = query, sample, len(samples)
        self.prompt: Whole = cell * len(queries) + query
        key = self.prompt * self.samples + sample
        self.order = np.argsort(key, kind="stable")
        self.sorted = key[self.order]
        twice = np.flatnonzero(self.sorted[1:] == self.sorted[:-1])
        if len(twice):
            first = verdicts[[*CELL_KEYS, "query_id", "sample"]].iloc[self.order[twice[0]]]
            raise SafetyHeadsError(f"{_named(first)} has more than one verdict: give each completion's once.")

    def find(self, cell: Whole, rows: NDArray[np.bool_]) -> Whole:
        """Where the row of `cell` stands with the query and sample of each of these rows; -1 if it is not there."""
        key = (cell * len(self.queries) + self.query[rows]) * self.samples + self.sample[rows]
        at = np.minimum(np.searchsorted(self.sorted, key), len(self.sorted) - 1)
        return np.where((cell >= 0) & (self.sorted[at] == key), self.order[at], -1)


def _check(verdicts: pd.DataFrame) -> None:
    need(verdicts, COLUMNS, "verdicts")
    if not pd.api.types.is_bool_dtype(verdicts["harmful"]):
        raise SafetyHeadsError(
            f"The verdicts' column harmful is {verdicts['harmful'].dtype}: it must be true or false."
        )
    empty = [column for column in COLUMNS if column != "paired" and verdicts[column].isna().any()]
    if empty:
        raise SafetyHeadsError(f"The verdicts have empty fields in the columns {', '.join(empty)}: none may be empty.")
    unknown = sorted(set(verdicts["outcome"].unique()).difference(OUTCOMES))
    if unknown:
        raise SafetyHeadsError(f"The verdicts have the outcome {unknown[0]!r}; known: {', '.join(OUTCOMES)}.")


def _named(keys: pd.Series) -> str:
    return ", ".join(f"{name} {value}" for name, value in keys.items())


def _values(verdicts: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """For each of `VALUES`, whether it holds for the rows."""
    code, names = pd.factorize(verdicts["outcome"])
    number = {str(name): at for at, name in enumerate(names)}
    harmful = verdicts["harmful"].to_numpy(dtype=bool)
    return {"asr": harmful, **{name: code == number.get(name, -1) for name in OUTCOMES}}


def _partners(cells: pd.DataFrame, paired: pd.Series, cell: Whole) -> Whole:
    """For each row with a plain one of its own batch, the cell of that plain row; -1 if there is none."""
    code, names = pd.factorize(paired)
    asked, at = np.unique(cell * max(len(names), 1) + code, return_inverse=True)
    of, name = np.divmod(asked, max(len(names), 1))
    wanted = cells.loc[of, CELL_KEYS].assign(variant=np.asarray(names, dtype=object)[name])
    known = pd.MultiIndex.from_frame(cells[CELL_KEYS])
    found: Whole = known.get_indexer(pd.MultiIndex.from_frame(wanted))
    return found[at]


def _plain_cells(cells: pd.DataFrame, kept: NDArray[np.bool_]) -> Whole:
    """For each row of `cells`, the row of the plain model's cell; -1 for those that are not kept."""
    wanted = cells[CELL_KEYS].assign(**PLAIN_CELL)
    found: Whole = pd.MultiIndex.from_frame(cells[CELL_KEYS]).get_indexer(pd.MultiIndex.from_frame(wanted))
    alone = np.flatnonzero(kept & (found < 0))
    if len(alone):
        first = cells.loc[alone[0]]
        raise SafetyHeadsError(
            f"The plain model's verdicts for {_named(first[PLAIN_KEYS])} are missing (ablation plain, plan none, "
            f"variant none): ablation {first['ablation']}, plan {first['plan']} cannot be compared. Judge them as well."
        )
    return found


def _plain_prompts(
    cells: pd.DataFrame,
    kept: NDArray[np.bool_],
    plain_of: Whole,
    cell: Whole,
    query: Whole,
    queries: NDArray[np.object_],
) -> Whole:
    """For each prompt of a cell, where the same prompt of the plain model's cell stands."""
    place, wanted = cell * len(queries) + query, plain_of[cell] * len(queries) + query
    at = np.minimum(np.searchsorted(place, wanted), len(place) - 1)
    extra, count = cell[place[at] != wanted], np.bincount(cell, minlength=len(cells))
    wrong = [*extra, *np.flatnonzero(kept & (count < count[plain_of]))]
    if wrong:
        one = wrong[0]
        own, plain = (set(queries[query[cell == which]]) for which in (one, plain_of[one]))
        raise SafetyHeadsError(
            f"The prompts of {_named(cells.loc[one, CELL_KEYS])} are not those of its plain model: "
            f"{_some(own - plain)} only here, {_some(plain - own)} only there. Judge the same prompts in both."
        )
    return at


def _some(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if shown else "none"
