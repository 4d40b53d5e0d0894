"""Keep what a stage of the atlas found, and write the tables of docs/atlas.md.

    python benchmarks/atlas_tables.py groups              keep what is in results/atlas
    python benchmarks/atlas_tables.py groups --compare    only tell where it differs from what was kept before

Rates, effects and maps are kept as CSV files in benchmarks/results/atlas/, one for each stage and table; no answers,
and no prompts. The scores of heads lie beside them as the pipeline made them, so that later stages can go on from
there. A comparison looks at the cells that both have, so that a run of a few cells will do.
"""

import argparse
import shutil
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pages import filled, markdown

STAGES = ("scores", "each", "groups", "benign")
KEPT = Path(__file__).parent / "results" / "atlas"
PAGE = Path(__file__).parents[1] / "docs" / "atlas.md"
PLANS = ["ships-1", *(f"top-{n}" for n in (1, 3, 5, 10)), "contrast-3", "sahara-3", "knockouts-3"]
"""The groups of heads, in the order of the page."""
TABLES = {
    "scores": ("rates",),
    "each": ("rates", "maps", "maps_by_head"),
    "groups": ("rates", "effects", "concentration"),
    "benign": ("rates", "effects"),
}
"""The tables that are kept of each stage's results."""
SCORES = ("ships", "sahara", "scores")
"""The folders of the scores that the first stage makes, in the results and in `scores` of what is kept."""
KEYS = [
    *("scores", "model", "dataset", "template", "ablation", "plan", "variant", "decoding", "judge", "method", "source"),
    *("step", "layer", "head"),
]
"""The columns that say which row it is, of all tables."""
OF_HEADS = ["scores", "model", "dataset", "template", "ablation", "step", "layer", "head"]
VALUES = ["score", "refusal_shift", "answer_shift", "selected"]
FORMAT, ROUNDING = "%.6g", {"rtol": 1e-3, "atol": 1e-6}
"""How numbers are kept, and by how much a processor's rounding may change the score of a head."""


def found(results: Path, table: str) -> pd.DataFrame:
    """A table of a stage's results; lists of heads as text."""
    rows = pd.read_parquet(results / f"{table}.parquet")
    return rows.drop(columns=[name for name in rows if rows[name].map(np.ndim).any()])


def heads(results: Path) -> pd.DataFrame:
    """The score of each head in each cell of scores, and its shifts; those of Ships are means over the prompts."""
    parts = [pd.DataFrame()]
    for path in sorted(path for folder in SCORES for path in (results / folder).rglob("*.parquet")):
        place = path.relative_to(results).parts
        rows = pd.read_parquet(path).assign(scores=place[1] if place[0] == "scores" else place[0])
        values = [name for name in VALUES if name in rows]
        keys = [name for name in OF_HEADS if name in rows]
        parts.append(rows.groupby(keys, dropna=False, observed=True, as_index=False)[values].mean())
    return pd.concat(parts, ignore_index=True).reindex(columns=[*OF_HEADS, *VALUES])


def keep(stage: str, results: Path, kept: Path = KEPT) -> None:
    """Write the tables and scores of a stage."""
    kept.mkdir(parents=True, exist_ok=True)
    for table in TABLES[stage]:
        found(results, table).to_csv(kept / f"{stage}-{table}.csv", index=False, float_format=FORMAT)
    if stage == "scores":
        shutil.rmtree(kept / "scores", ignore_errors=True)
        for folder in SCORES:
            unfinished = shutil.ignore_patterns(".*")
            shutil.copytree(
                results / folder, kept / "scores" / folder, ignore=unfinished, copy_function=shutil.copyfile
            )


def differences(stage: str, results: Path, kept: Path = KEPT) -> tuple[int, list[str]]:
    """How many rows of a stage's tables were there before, and what differs between these, a line for each value."""
    compared, told = 0, []
    for table in [table for table in TABLES[stage] if (results / f"{table}.parquet").exists()]:
        text = found(results, table).to_csv(index=False, float_format=FORMAT)
        files = (kept / f"{stage}-{table}.csv", StringIO(text))
        before, now = (pd.read_csv(file, dtype=str, keep_default_na=False) for file in files)
        keys = [name for name in KEYS if name in now]
        both = before.merge(now, on=keys, suffixes=("", " now"), validate="one_to_one")
        compared += len(both)
        for name in [name for name in now if name in before and name not in keys]:
            told += _told(table, both, keys, name, both[name] != both[f"{name} now"])
    if stage == "scores":
        before, now = (heads(place) for place in (kept / "scores", results))
        both = before.merge(now, on=OF_HEADS, suffixes=("", " now"), validate="one_to_one")
        compared += len(both)
        for name in VALUES:
            pair = (both[one].astype(float) for one in (name, f"{name} now"))
            told += _told("heads", both, OF_HEADS, name, ~np.isclose(*pair, **ROUNDING, equal_nan=True))
    return compared, told


def _told(table: str, both: pd.DataFrame, keys: list[str], name: str, differ: Any) -> list[str]:
    """The rows in which a value differs, in words."""
    return [
        f"{table}: {' '.join(str(row[key]) for key in keys if pd.notna(row[key]))}: "
        f"{name} was {row[name]}, is {row[f'{name} now']}"
        for row in both[differ].to_dict("records")
    ]


def tables(kept: Path = KEPT) -> dict[str, str]:
    """The tables of the page, by name, from what is kept."""
    read = {path.stem: pd.read_csv(path) for path in kept.glob("*.csv")} | {"heads": heads(kept / "scores")}
    made = [
        ("plain", ["scores-rates"], _plain),
        ("first", ["heads"], _first),
        ("each", ["each-maps", "each-maps_by_head"], _each),
        ("groups", ["groups-effects"], _groups),
        ("benign", ["benign-effects", "benign-rates"], _benign),
    ]
    return {
        name: of(*(read[one] for one in needed))
        for name, needed, of in made
        if all(one in read and len(read[one]) for one in needed)
    }


def _share(value: float, low: float | None = None, high: float | None = None, sign: str = "") -> str:
    shown = f"{value:{sign}.2f}"
    return (
        "-"
        if pd.isna(value)
        else shown
        if low is None or pd.isna(low)
        else f"{shown} [{low:{sign}.2f}, {high:{sign}.2f}]"
    )


def _plain(rates: pd.DataFrame) -> str:
    """What the plain models answer."""
    rows = rates[rates["plan"] == "none"].sort_values(["model", "dataset"])
    head = ["model", "rows", "n", "complied with", "ASR (`paper`)", "refused", "broken"]
    return markdown(
        head,
        [
            [
                *(row["model"], row["dataset"], str(row["n"])),
                _share(row["coherent_asr"], row["coherent_low"], row["coherent_high"]),
                *(_share(row[name]) for name in ("asr", "refused", "degenerate")),
            ]
            for row in rows.to_dict("records")
        ],
    )


def _first(heads_: pd.DataFrame) -> str:
    """The three heads that each method names first, chosen on the even rows, with what they score."""
    lines = []
    for model, rows in heads_.groupby("model"):
        of = {key: part.set_index(["layer", "head"]) for key, part in rows.groupby(["scores", "dataset"])}
        ships = of["ships", "even"]["score"]
        searched = rows[(rows["scores"] == "sahara") & (rows["selected"] == 1)].sort_values("step")
        ranked = {
            "top": ships,
            "contrast": ships - of["ships", "questions"]["score"],
            "sahara": searched.set_index(["layer", "head"])["score"],
            "knockouts": of["knockouts", "even"]["score"],
        }
        for method, scores in ranked.items():
            order = scores if method == "sahara" else scores.sort_values(ascending=False, kind="stable")
            named = [f"L{layer:02d}H{head:02d} {score:.3g}" for (layer, head), score in order.head(3).items()]
            lines.append([model, method, *named])
    return markdown(["model", "method", "first", "second", "third"], lines)


def _each(maps: pd.DataFrame, by_head: pd.DataFrame) -> str:
    """The map of the twenty heads of highest mean Ships: the heads without which most and least is complied with."""
    lines = []
    for row in maps.sort_values(["model", "dataset"]).to_dict("records"):
        own = by_head[(by_head["model"] == row["model"]) & (by_head["dataset"] == row["dataset"])]
        ends = [own.loc[own["effect"].idxmax()], own.loc[own["effect"].idxmin()]]
        named = [
            f"L{head['layer']:02.0f}H{head['head']:02.0f} {head['effect']:+.2f} (p {_p(head['p_adjusted'])})"
            for head in ends
        ]
        chance = [f"{row[f'expected_{end}']:+.2f}" for end in ("highest", "lowest")]
        lines.append(
            [
                row["model"],
                row["dataset"],
                _share(row["plain"]),
                named[0],
                chance[0],
                named[1],
                chance[1],
                _p(row["p_value"]),
            ]
        )
    head = ["model", "rows", "plain", "highest", "by chance", "lowest", "by chance", "p of the map"]
    return markdown(head, lines)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _groups(effects: pd.DataFrame) -> str:
    """What becomes of the answers without each group, on the rows it was chosen on and on the others."""
    keys = effects["plan"].str.partition("@")[0]
    rows = effects.assign(what=keys, at=keys.map(PLANS.index)).sort_values(["model", "at", "dataset"])
    head = ["model", "group", "rows", "plain", "without", "change", "control", "over control", "p", "broken"]
    return markdown(
        head,
        [
            [
                *(row["model"], row["what"], row["dataset"], _share(row["plain"]), _share(row["ablated"])),
                _share(row["effect"], row["effect_low"], row["effect_high"], "+"),
                _share(row["control"]),
                _share(row["over_control"], row["over_control_low"], row["over_control_high"], "+"),
                *(_share(row["p_control"]), _share(row["degenerate"])),
            ]
            for row in rows.to_dict("records")
        ],
    )


def _benign(effects: pd.DataFrame, rates: pd.DataFrame) -> str:
    """What the same groups do to harmless questions."""
    lines = []
    of_questions = rates[rates["dataset"] == "questions"].groupby(["model", "plan"])[["degenerate", "refused"]].mean()
    for (model, plan), row in of_questions.iterrows():
        kl = effects[(effects["model"] == model) & (effects["plan"] == plan)]["harmless_kl"].mean()
        lines.append([model, plan.partition("@")[0], _share(kl), _share(row["refused"]), _share(row["degenerate"])])
    return markdown(["model", "group", "KL of the first token", "refused", "broken"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--results", type=Path, default=Path("results/atlas"))
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    if not options.compare:
        keep(options.stage, options.results)
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables()), encoding="utf-8")
        return
    compared, told = differences(options.stage, options.results)
    print(*told, f"{compared:,} rows were there before; {len(told)} values differ.", sep="\n")
    sys.exit(bool(told) or not compared)


if __name__ == "__main__":
    main()
