"""The tables of the page as text: what was run, the leading heads, the choices of Sahara, and the rates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from safetyheads.heads import Head, parse_head
from safetyheads.report.caveats import number
from safetyheads.report.data import ReportData, cells, groups
from safetyheads.report.figures.drawing import percent

LEADING = 10
"""The number of heads in the table of leading heads."""
SIGNS = {"refusal_shift": "refusal shift (nats)", "answer_shift": "answer shift (nats)"}
"""The columns of Ships that tell which way a head moves the first token, and their headings."""
LARGEST = 20
"""The most rows that the table of rates shows of a `single` plan."""


@dataclass(frozen=True)
class Table:
    """Rows of text under `columns`. The first cell of a row is its heading.

    `numbers` are the positions of the columns that are aligned to the right. `links` has an id for each row that its
    heading leads to, or is empty.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    note: str = ""
    links: Sequence[str] = ()


def models(data: ReportData) -> Table:
    """Each measured model's source and shape; a dash where its description does not say.

    A note names the models whose weights were made of a GGUF file, and how they were rounded there.
    """
    rows, notes = [], []
    for name in data.measured("models"):
        model = data.models.get(name, {})
        size = f"{model['layers']} × {model['heads']}" if {"layers", "heads"} <= set(model) else "–"
        source = str(model.get("source", "–"))
        if model.get("repo"):
            source = f"{model['repo']} @ {str(model.get('revision') or 'main')[:12]}"
        if of := model.get("gguf"):
            types = ", ".join(f"{count} tensors {kind}" for kind, count in of["types"].items())
            notes += [f"The weights of {name} are those of {of['file']} ({types}), not of the model in full precision."]
        keys = [str(model.get(key) or "–") for key in ("kv_heads", "head_dim", "class")]
        rows.append([name, source, size, *keys])
    columns = ["model", "source", "layers × heads", "key/value heads", "head width", "class"]
    return Table("Models", columns, rows, frozenset({3, 4}), " ".join(notes))


def datasets(data: ReportData) -> Table:
    """Each measured data set's number of queries, and its categories with their counts if there are at most six.

    A note names the data sets that are pilots, with what was taken from which number of queries, and the benign ones.
    """
    rows, notes = [], []
    for name in data.measured("datasets"):
        queries = cells(data.datasets, dataset=name)
        category = queries["category"].dropna().astype(str) if "category" in queries else pd.Series(dtype=str)
        counts = category[category != ""].value_counts(sort=False)
        if 0 < len(counts) <= 6:
            words = ", ".join(f"{what} {count}" for what, count in counts.items())
        else:
            words = f"{len(counts)} categories" if len(counts) else "–"
        whole, how = _whole(data, name)
        pilot = len(queries) < whole
        number = f"{len(queries)} of {whole:,}" if pilot else str(len(queries)) if len(queries) else "–"
        notes += [f"{name} is a pilot: {how} {len(queries)} of {whole:,} queries."] if pilot else []
        notes += [f"{name} is benign: its queries should be answered, so a high rate is good."] * (name in data.benign)
        rows.append([name, number, words])
    return Table("Data sets", ["data set", "queries", "categories"], rows, frozenset({1}), " ".join(notes))


def _whole(data: ReportData, dataset: str) -> tuple[int, str]:
    """The number of queries in the file of a data set and how its pilot was taken from it; 0 if it is no pilot."""
    record = data.record_of(f"datasets/{dataset}.parquet")
    if "queries" not in record:
        return 0, ""
    settings = record["config"]["dataset"]
    drawn = f"drawn with seed {settings['sample']['seed']}," if "sample" in settings else "the first"
    return int(record["queries"]), f"the {settings['half']} rows," if "half" in settings else drawn


def leading_heads(ships: pd.DataFrame) -> Table:
    """The `LEADING` heads of highest mean Ships score over the prompts, in nats, and which way they move refusals.

    Beside each stand the mean shifts of refusals and answers where they are given, the share of the sum over all heads
    that the heads up to this one have, and the share of prompts whose best head it is. `ships` has the rows of one
    cell: query_id, layer, head, score and, unless they are all missing, refusal_shift and answer_shift.
    """
    order = ships.sort_values(["score", "layer", "head"], ascending=[False, True, True], kind="stable")
    best = order.groupby("query_id", observed=True, sort=False).head(1)
    wins = best.groupby(["layer", "head"]).size() / best["query_id"].nunique()
    signs = [name for name in SIGNS if name in ships and ships[name].notna().any()]
    means = ships.groupby(["layer", "head"])[["score", *signs]].mean().reset_index()
    means = means.sort_values(["score", "layer", "head"], ascending=[False, True, True], ignore_index=True)
    total = means["score"].sum()
    shares = means["score"].cumsum() / (total if total else np.nan)
    rows = [
        [
            str(Head(layer, head)),
            f"{score:.3g}",
            *(f"{shift:+.2f}" for shift in shifts),
            percent(share),
            percent(wins.get((layer, head), 0.0)),
        ]
        for (layer, head, score, *shifts), share in zip(means.head(LEADING).itertuples(index=False), shares)
    ]
    columns = [
        "head",
        "mean Ships (nats)",
        *(SIGNS[name] for name in signs),
        "cumulated share of all",
        "best for prompts",
    ]
    numbers = frozenset(range(1, len(columns)))
    return Table(f"The {len(rows)} leading heads of {len(means)}", columns, rows, numbers)


_CONDITIONS = ("dtype", "attention", "kernels", "device", "out_of_memory")


def conditions(data: ReportData) -> Table:
    """What scores, completions and judgements were computed with: a row for each different set of conditions."""
    files: Counter[tuple[str, ...]] = Counter()
    for group in data.record.get("made_from", ()):
        record = group["record"]
        if "device" in record:
            found = [*map(record.get, _CONDITIONS), *map(record["versions"].get, ("torch", "transformers"))]
            words = [", ".join(map(str, value)) if isinstance(value, list) else str(value or "") for value in found]
            for path in group["files"]:
                stage, *keys = path.removesuffix(".parquet").split("/")
                name = keys[1 if stage == "scores" else 0]  # the first key of scores is their method
                files[f"{name} (judge)" if stage in ("judged", "labelled") else name, *words] += 1
    columns = ["model", *_CONDITIONS[:-1], "rows after out of memory", "torch", "transformers", "files"]
    return Table("Computed with", columns, [[*key, str(n)] for key, n in sorted(files.items())], frozenset({5, 8}))


def rates_table(rates: pd.DataFrame) -> Table:
    """The rates of one template, decoding and judge; of each `single` plan only the rows of the `LARGEST` rates.

    Rates corrected for the judge, and the band of the keyword judges, have columns where some row has them.
    """
    kept, hidden = [], 0
    for (_, plan), rows in groups(rates, ("ablation", "plan")).items():
        if plan == "single":
            heads = [parse_head(str(name)) for name in rows["variant"]]
            rows = rows.assign(_head=heads).sort_values(["asr", "_head"], ascending=[False, True], kind="stable")
            hidden += max(len(rows) - LARGEST, 0)
            rows = rows.head(LARGEST)
        kept.append(rows)
    shown = pd.concat(kept).to_dict("records")
    more = {
        "corrected ASR": [corrected_words(row) for row in shown],
        "keyword judges": [band_words(row) for row in shown],
    }
    more = {name: column for name, column in more.items() if any(column)}
    rows = [
        [
            str(row["plan"]),
            str(row["variant"]) if row["variant"] != row["plan"] else "",
            str(row["ablation"]),
            str(int(row["n"])),
            f"{row['asr']:.3f}",
            f"{row['low']:.3f} – {row['high']:.3f}",
            f"{row['delta']:+.3f}" if row["plan"] != "none" else "",
            p_value(row["p_value"]),
            p_value(row["p_adjusted"]),
            *(column[at] for column in more.values()),
        ]
        for at, row in enumerate(shown)
    ]
    note = f"Only the {LARGEST} largest of each single plan are listed ({hidden:,} rows are not)." if hidden else ""
    columns = ["plan", "variant", "ablation", "n", "ASR", "95 % interval", "difference", "p", "p (Holm)", *more]
    return Table(
        "Rates",
        columns,
        rows,
        frozenset(range(3, len(columns))),
        f"{note} All are in rates.parquet, beside the folder of this page.".strip(),
    )


def corrected_words(row: Mapping[str, Any]) -> str:
    """A row's corrected ASR with its interval; empty where it has none."""
    value = number(row, "corrected_asr")
    if not isfinite(value):
        return ""
    return f"{percent(value)}\n({percent(number(row, 'corrected_low'))} – {percent(number(row, 'corrected_high'))})"


def band_words(row: Mapping[str, Any]) -> str:
    """The lowest and highest ASR of the keyword judges on a row's answers; empty where they agree or are not there."""
    low, high = number(row, "asr_lowest"), number(row, "asr_highest")
    return f"{low:.3f} – {high:.3f}" if low < high else ""


def p_value(p: float | None) -> str:
    """A p-value as `0.012`, or as `3e-05` where it is below 0.0001; empty for None and NaN."""
    if p is None or not np.isfinite(p):
        return ""
    return f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
