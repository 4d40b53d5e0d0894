"""Keep what a stage of the atlas found, and write the tables of docs/atlas.md.

    python benchmarks/atlas_tables.py groups              keep what is in results/atlas
    python benchmarks/atlas_tables.py groups --compare    only tell where it differs from what was kept before

Rates, effects, maps and the scores of heads are kept as CSV files in benchmarks/results/atlas/, one for each stage and
table; no answers, and no prompts. A comparison looks at the cells that both have, so that a run of a few cells will do.
"""

import argparse
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

STAGES = ("scores", "each", "groups", "benign")
KEPT = Path(__file__).parent / "results" / "atlas"
TABLES = {
    "scores": ("rates", "heads"),
    "each": ("rates", "maps", "maps_by_head"),
    "groups": ("rates", "effects", "concentration"),
    "benign": ("rates", "effects"),
}
"""What each stage leaves: tables of the results, and `heads`, the mean score of each head."""
KEYS = [
    *("scores", "model", "dataset", "template", "ablation", "plan", "variant", "decoding", "judge", "method", "source"),
    *("step", "layer", "head"),
]
"""The columns that say which row it is, of all tables."""
OF_HEADS = ["scores", "model", "dataset", "template", "ablation", "step", "layer", "head"]
FORMAT = "%.6g"


def found(results: Path, table: str) -> pd.DataFrame:
    """A table of a stage's results, or the scores of its heads; lists of heads as text."""
    if table == "heads":
        return heads(results)
    rows = pd.read_parquet(results / f"{table}.parquet")
    return rows.drop(columns=[name for name in rows if rows[name].map(np.ndim).any()])


def heads(results: Path) -> pd.DataFrame:
    """The score of each head in each cell of scores, and its shifts; those of Ships are means over the prompts."""
    parts = []
    for place in (results / "ships", results / "sahara", *sorted((results / "scores").glob("*"))):
        for path in sorted(place.rglob("*.parquet")):
            rows = pd.read_parquet(path).assign(scores=place.name)
            values = [name for name in ("score", "refusal_shift", "answer_shift") if name in rows]
            keys = [name for name in OF_HEADS if name in rows]
            parts.append(rows.groupby(keys, dropna=False, observed=True, as_index=False)[values].mean())
    return pd.concat(parts, ignore_index=True)


def keep(stage: str, results: Path, kept: Path = KEPT) -> None:
    """Write the tables of a stage."""
    kept.mkdir(parents=True, exist_ok=True)
    for table in TABLES[stage]:
        found(results, table).to_csv(kept / f"{stage}-{table}.csv", index=False, float_format=FORMAT)


def differences(stage: str, results: Path, kept: Path = KEPT) -> tuple[int, list[str]]:
    """How many rows of a stage's tables were there before, and what differs between these, a line for each row."""
    compared, told = 0, []
    for table in TABLES[stage]:
        text = found(results, table).to_csv(index=False, float_format=FORMAT)
        before, now = pd.read_csv(kept / f"{stage}-{table}.csv"), pd.read_csv(StringIO(text))
        keys = [name for name in KEYS if name in now]
        both = before.merge(now, on=keys, suffixes=("", " now"), validate="one_to_one")
        compared += len(both)
        for name in [name for name in now if name not in keys]:
            for row in both[both[name].astype(str) != both[f"{name} now"].astype(str)].to_dict("records"):
                where = " ".join(str(row[key]) for key in keys)
                told.append(f"{table}: {where}: {name} was {row[name]}, is {row[f'{name} now']}")
    return compared, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--results", type=Path, default=Path("results/atlas"))
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    if not options.compare:
        return keep(options.stage, options.results)
    compared, told = differences(options.stage, options.results)
    print(*told, f"{compared:,} rows were there before; {len(told)} values differ.", sep="\n")
    sys.exit(bool(told) or not compared)


if __name__ == "__main__":
    main()
