"""Which method of attribution finds the truth? Demo models whose planted heads are known, and every method on each.

    PYTHONPATH=workflow python benchmarks/attributions.py --seeds 3 --save
    PYTHONPATH=workflow python benchmarks/attributions.py --kinds two backup --seeds 1

Trains a model of each kind for each seed: the first with the kind's own heads, the others with heads drawn at random.
Each method then chooses heads on two data sets: one whose prompts are all guarded, and one of 100 prompts of which 12
are. Methods that compare states are tried with 50 of 100 as well. `single` ablates each head alone and counts the
answers that change: what a map can see. Prints tables of means; with --save the rows of these models take the place of
those in benchmarks/results/attributions.csv that are of the same kind and seed, and chart and tables of
docs/attributions.md are made of all.
"""

import argparse
import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measure import fresh_parts
from pages import filled, markdown
from scipy.stats import rankdata
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from safetyheads import prompts
from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.displacement import displacement
from safetyheads.attribution.gradient import gradient
from safetyheads.attribution.knockouts import knockouts
from safetyheads.attribution.mask import mask
from safetyheads.attribution.refusal_direction import refusal_direction
from safetyheads.attribution.refusal_shift import FirstTokens, first_tokens
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.sahara_centred import sahara_centred
from safetyheads.attribution.scoring_passes import Sweep
from safetyheads.attribution.ships import ships
from safetyheads.chosen_heads import contrast, matched_draws, searched, top_heads
from safetyheads.config.attribution import Attribution
from safetyheads.demo.model import train
from safetyheads.demo.organisms import ORGANISMS, Organism, organism_of
from safetyheads.demo.requests import Category, Request, requests
from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import PartialForward, Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, Ablation, Head, HeadSet, Kind, all_heads
from safetyheads.methods import METHODS
from safetyheads.statistics.controls import randomisation_p
from safetyheads.templates import OPENINGS, opening_tokens

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "attributions.md"
TEMPLATE = {"text": "## Query:{query}\n## Answer:"}
ABLATION, BUDGET = Ablation(Kind.UNDIFFERENTIATED), 8192
HALF, GUARDED_OF_FEW, OTHERS = 50, 12, 88
NOT_TRAINED = "not trained"
"""In the column `data`, of a model that has not learned its task."""
OF_GROUPS = ("top", "sahara", "sahara_centred", "displacement")
"""The methods that are tried with half of the prompts guarded: those that see how states or prompts change."""
SHOWN = ["single", *(name for name in METHODS if name != "ships")]
DIGITS = {
    **{"auroc": 2, "worst_rank": 1, "false_alarms": 2, "chosen": 1, "precision": 2, "decoy_named": 2, "signed": 2},
    **{"seconds": 2, "passes": 0},
}
"""The columns of the table of means that are not recalls, with how many digits each has there."""
COLUMNS = [
    *("kind", "seed", "planted", "data", "method", "n", "recall", "precision", "auroc", "worst_rank", "false_alarms"),
    *("signed", "decoy_named", "chosen", "freed", "control_freed", "p_control", "seconds", "passes"),
]


class Asked(NamedTuple):
    """The prompts of a model that are asked, and which first tokens are refusals."""

    model: PreTrainedModel
    harmful: pd.DataFrame
    benign: pd.DataFrame
    first: FirstTokens


def asked(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Request]) -> Asked:
    """The prompts of these requests, beside those of the benign data set."""
    tables = []
    for some in (rows, requests("benign")):
        table = pd.DataFrame(
            {"query_id": [f"q-{at:04d}" for at in range(len(some))], "query": [row.query for row in some]}
        )
        tables.append(prompts.build(table, TEMPLATE, tokenizer, 2048, len(tokenizer)).table)
    ids = opening_tokens(tables[0]["text"], OPENINGS, tokenizer)
    with fresh_parts() as parts:
        first = first_tokens(model, *tables, ids, token_budget=BUDGET, parts=parts)
    return Asked(model, *tables, first)


def data_sets(organism: Organism) -> dict[str, list[Request]]:
    """The requests that heads are chosen on: all of them guarded, 50 of 100, and 12 of 100, as many of each topic."""
    guarded = requests("three" if Category.GUARDED_C in organism.categories else "harmful")
    topics = list(dict.fromkeys(row.category for row in guarded))
    of_topic = {topic: [row for row in guarded if row.category == topic] for topic in topics}
    some = [row for topic in topics for row in of_topic[topic][: HALF // len(topics)]]
    few = [row for topic in topics for row in of_topic[topic][: GUARDED_OF_FEW // len(topics)]]
    others = [row for row in requests("attribution") if row.category == Category.ALWAYS_REFUSED][:OTHERS]
    return {"guarded": guarded, "half": some + others[: 2 * HALF - len(some)], "few": few + others}


class Found(NamedTuple):
    """What a method says: the score of each head, and the heads of its own choice if it makes one."""

    scores: np.ndarray
    chosen: HeadSet | None = None
    ranked: HeadSet | None = None
    """The heads in the order in which a search selected them; by score if None."""


def of_table(rows: pd.DataFrame) -> Found:
    """Of a method with a row for each head."""
    rows = rows.sort_values(["layer", "head"])
    chosen = rows.get("selected", pd.Series([None] * len(rows)))
    own = tuple(Head(int(one["layer"]), int(one["head"])) for one in rows[chosen == True].to_dict("records"))  # noqa: E712
    return Found(rows["score"].to_numpy(dtype=float), own if chosen.notna().any() else None)


def of_search(rows: pd.DataFrame) -> Found:
    """Of a method that searches: the scores of its first step, and the heads in the order of its steps."""
    first = rows[rows["step"] == 1].sort_values(["layer", "head"])["score"].to_numpy(dtype=float)
    return Found(first, ranked=tuple(searched(rows)))


def single(of: Asked, parts: Parts) -> Found:
    """The share of prompts whose likeliest first token no longer is a refusal, less the share where it becomes one."""
    refusals = torch.tensor(of.first.refusals)

    def refused(top: Top) -> torch.Tensor:
        return torch.isin(top.logits.argmax(-1), refusals).double()

    sweep = Sweep(of.model, [list(map(int, ids)) for ids in of.harmful["token_ids"]], ABLATION, BUDGET, parts)
    found = np.empty((len(of.harmful), DEMO_GRID[0] * DEMO_GRID[1]))

    def measure(plain: Top, ablated: Top) -> torch.Tensor:
        return refused(plain)[:, None] - refused(ablated).view(len(plain.logits), -1)

    for block, batch, part in sweep.by_batch("single", all_heads(*DEMO_GRID), measure):
        found[np.ix_(block.prompts, batch.candidates)] = part
    return Found(found.mean(axis=0))


def methods(of: Asked, n: int) -> dict[str, Callable[[Parts], Found]]:
    """Every method as a function of a place for its parts."""
    how: dict[str, Any] = {"token_budget": BUDGET}
    search: dict[str, Any] = {"steps": n, "rank": 1, "representation": "final_norm", **how}

    def of_ships(prompts_: pd.DataFrame, parts: Parts) -> pd.DataFrame:
        return ships(of.model, prompts_, ABLATION, parts=parts, **how)

    def contrasted(parts: Parts) -> Found:
        benign = of_ships(of.benign, parts)
        with fresh_parts() as own:
            return of_table(contrast(of_ships(of.harmful, own), benign))

    def of_mean(parts: Parts) -> Found:
        return of_table(of_ships(of.harmful, parts).groupby(["layer", "head"], as_index=False)["score"].mean())

    given = (of.model, of.harmful, ABLATION)
    return {
        "single": lambda parts: single(of, parts),
        "top": of_mean,
        "contrast": contrasted,
        "sahara": lambda parts: of_search(sahara(*given, parts=parts, **search)),
        "displacement": lambda parts: of_search(displacement(*given, steps=n, parts=parts, **how)),
        "sahara_centred": lambda parts: of_search(sahara_centred(*given, parts=parts, **search)),
        "refusal_direction": lambda parts: of_table(
            refusal_direction(of.model, of.harmful, of.benign, layer="own", parts=parts, **how)
        ),
        "gradient": lambda parts: of_table(gradient(*given, of.first, sample=0, parts=parts, **how)[0]),
        "knockouts": lambda parts: of_table(knockouts(*given, of.first, parts=parts, **how)),
        "mask": lambda parts: of_table(mask(*given, of.first, parts=parts, **how)),
    }


def freed(of: Asked, head_sets: Sequence[Sequence[HeadSet]]) -> list[float]:
    """The share of prompts that are not refused by their first token, for each way to ablate heads in each prompt."""
    passes, refusals, shares = PartialForward(of.model), torch.tensor(of.first.refusals), []
    for sets in head_sets:
        tops = [
            passes.whole(torch.tensor([list(map(int, ids))]), ABLATION, [own]).logits.argmax(-1)
            for ids, own in zip(of.harmful["token_ids"], sets)
        ]
        kept = torch.isin(torch.cat(tops), refusals).double()
        shares.append(1 - float(kept.mean()))
    return shares


def measured(found: Found, planted: HeadSet, organism: Organism, method: str) -> dict[str, Any]:
    """How well a method found the planted heads. `named` says of each head how surely it is among the first n."""
    heads, n, scores = all_heads(*DEMO_GRID), len(planted), towards(found, organism, method)
    truth = np.array([head in planted for head in heads])
    named = first_of(scores, n) if found.ranked is None else np.array([head in found.ranked[:n] for head in heads])
    above = scores[truth][:, None] - scores[~truth][None]
    row: dict[str, Any] = {
        "n": n,
        "recall": float(named[truth].sum()) / n,
        "worst_rank": float(rankdata(-scores)[truth].max()),
        "auroc": float(((above > 0) + 0.5 * (above == 0)).mean()),
        "false_alarms": int((~truth & (scores > 0) & (scores >= scores.max() / 2)).sum()),
        "chosen": None if found.chosen is None else len(found.chosen),
        "precision": len(set(found.chosen) & set(planted)) / len(found.chosen) if found.chosen else None,
    }
    if scores is not found.scores:
        row["signed"] = bool((found.scores[truth] < 0).all())
    return row | {"named": dict(zip(heads, map(float, named)))}


def first_of(scores: np.ndarray, n: int) -> np.ndarray:
    """The chance of each head (heads,) to be among the n of highest score, if lots decide between equal scores.

    A head whose score is not above 0 is not named at all.
    """
    last = np.sort(scores)[-n]
    surely, perhaps = scores > last, scores == last
    chance: np.ndarray = (surely + perhaps * (n - surely.sum()) / perhaps.sum()) * (scores > 0)
    return chance


def towards(found: Found, organism: Organism, method: str) -> np.ndarray:
    """The scores, turned round where they have a sign and the planted head holds refusals back."""
    signed = method == "single" or METHODS[method].signed
    return -found.scores if signed and organism.name == "suppressor" else found.scores


def one_model(task: tuple[str, int, Path]) -> list[dict[str, Any]]:
    """Train one model and run every method on it: the rows of the table, which are kept beside the model.

    They also hold all scores, so that another measure of them needs no new run.
    """
    kind, seed, folder = task
    kept = folder / f"{kind}-{seed}.json"
    if not kept.is_file():
        rows = made_of(kind, seed, folder / f"{kind}-{seed}")
        kept.write_text(json.dumps(rows), encoding="utf-8")
    return list(json.loads(kept.read_text(encoding="utf-8")))


def made_of(kind: str, seed: int, place: Path) -> list[dict[str, Any]]:
    """The rows of one model, which is trained in the folder `place` unless it is there."""
    torch.set_num_threads(1)
    organism = organism_of(kind)
    planted, decoy = positions(organism, seed)
    named_of = {"kind": kind, "seed": seed, "planted": " ".join(map(str, planted))}
    try:
        if not (place / "model.safetensors").is_file():
            train(place, kind=kind, seed=seed, planted=planted, decoy=decoy, progress=False)
    except SafetyHeadsError as error:
        print(f"{kind}, seed {seed}: {error}")
        return [named_of | {"data": NOT_TRAINED}]
    model = install(AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval())
    tokenizer = AutoTokenizer.from_pretrained(place)
    rows: list[dict[str, Any]] = []
    for data, chosen_on in data_sets(organism).items():
        of = asked(model, tokenizer, chosen_on)
        for method, run in methods(of, len(planted)).items():
            if data == "half" and method not in OF_GROUPS:
                continue
            begun = time.perf_counter()
            with fresh_parts() as parts:
                found = run(parts)
            took = time.perf_counter() - begun
            row = named_of | {"data": data, "method": method, **measured(found, planted, organism, method)}
            row["decoy_named"] = row.pop("named").get(decoy)
            row |= {"seconds": took, "passes": passes(method, len(planted), len(of.harmful), len(of.benign))}
            row |= {"scores": found.scores.tolist(), "own": found.chosen, "ranked": found.ranked}
            if data == "guarded" and method != "single":
                row |= control(of, organism, found, method)
            rows.append(row)
    return rows


def control(of: Asked, organism: Organism, found: Found, method: str) -> dict[str, Any]:
    """What ablating the method's first heads frees, as many as the kind needs, and what matched draws free.

    Nothing if it names no head.
    """
    scores, n = towards(found, organism, method), needed(organism)
    table = pd.DataFrame(all_heads(*DEMO_GRID), columns=["layer", "head"]).assign(score=scores)
    heads = found.ranked[:n] if found.ranked else top_heads(table[table["score"] > 0], n)
    if not heads:
        return {}
    plan = [tuple(sorted(heads))] * len(of.harmful)
    plain, own, *draws = freed(of, [[()] * len(plan), plan, *matched_draws(plan, *DEMO_GRID, 20, 0)])
    p_control, _ = randomisation_p(own - plain, np.array(draws) - plain)
    return {"freed": own, "control_freed": float(np.mean(draws)), "p_control": p_control}


def needed(organism: Organism) -> int:
    """How many planted heads it takes to change as many answers as planted heads can."""
    plain = answered(organism, set())
    changes = {places: abs(answered(organism, set(places)) - plain) for places in organism.subsets()}
    return min(len(places) for places, change in changes.items() if change == max(changes.values()))


def answered(organism: Organism, ablated: set[int]) -> int:
    """How many topics are answered without these planted heads."""
    return sum(organism.complies(category, ablated) for category in organism.categories)


def passes(method: str, n: int, harmful: int, benign: int) -> float:
    """Passes over each of the harmful prompts, by the table of methods; of `single` as many as there are heads.

    Benign prompts are shared out among the harmful ones. Of `mask` it is what it takes if no start ends early.
    """
    heads, settings = DEMO_GRID[0] * DEMO_GRID[1], Attribution(steps=n).plain()
    if method == "single":
        return heads
    of, both = METHODS[method], harmful + benign
    swept = both if of.contrasted else harmful
    passed = both if method == "refusal_direction" else harmful
    return (of.sweeps(settings) * heads * swept + of.passes(settings, heads, passed)) / harmful


def positions(organism: Organism, seed: int) -> tuple[HeadSet, Head | None]:
    """The planted heads and the decoy of a seed: the kind's own for seed 0, then drawn where the kind allows them."""
    if seed == 0:
        return organism.planted, organism.decoy
    rng = random.Random(f"{organism.name}-{seed}")
    layers = [rng.choice(organism.layers)] if organism.one_layer else list(organism.layers)
    places = [head for head in all_heads(*DEMO_GRID) if head.layer in layers]
    drawn = rng.sample(places, len(organism.planted))
    others = [head for head in all_heads(*DEMO_GRID) if head not in drawn]
    return tuple(drawn), rng.choice(others) if organism.decoy else None


def recalls(rows: pd.DataFrame, data: str) -> str:
    """The mean recall of each method on each kind, as Markdown."""
    means = rows[rows["data"] == data].pivot_table(index="kind", columns="method", values="recall", sort=False)
    means = means[[name for name in SHOWN if name in means]]
    return markdown([data, *means], [[kind, *map("{:.2f}".format, values)] for kind, values in means.T.items()])


def summary(rows: pd.DataFrame) -> str:
    """What else there is to say of each method, with all prompts guarded and with few: means, of seconds the median."""
    of = rows[rows["data"] != "half"].groupby("method", sort=False)
    means = (
        of[[*DIGITS]].mean().assign(seconds=of["seconds"].median()).loc[[name for name in SHOWN if name in of.groups]]
    )
    lines = [
        [name, *("–" if np.isnan(value) else f"{value:.{DIGITS[column]}f}" for column, value in values.items())]
        for name, values in means.iterrows()
    ]
    return markdown(["method", *(column.replace("_", " ") for column in DIGITS)], lines)


def controls(rows: pd.DataFrame) -> str:
    """With all prompts guarded, what each method's heads free, what those of its control do, and the median p."""
    of = rows[rows["freed"].notna()].groupby(["kind", "method"], sort=False)
    mean, p = of[["freed", "control_freed"]].mean(), of["p_control"].median()
    said = {at: f"{mean['freed'][at]:.2f} ({mean['control_freed'][at]:.2f}), {p[at]:.2f}" for at in p.index}
    kinds, names = dict.fromkeys(kind for kind, _ in said), [name for name in SHOWN if name in p.index.levels[1]]
    return markdown(
        ["freed (control), p", *names], [[kind, *(said.get((kind, name), "–") for name in names)] for kind in kinds]
    )


def models(rows: pd.DataFrame) -> str:
    """How many models of each kind have learned their task, of how many."""
    of = rows.drop_duplicates(["kind", "seed"]).groupby("kind", sort=False)["data"]
    return f"Models: {', '.join(f'{kind} {(data != NOT_TRAINED).sum()} of {len(data)}' for kind, data in of)}."


def tables_of(rows: pd.DataFrame) -> dict[str, str]:
    """Everything that is printed, by name."""
    return {
        "models": models(rows),
        **{data: recalls(rows, data) for data in ("guarded", "half", "few")},
        "summary": summary(rows),
        "controls": controls(rows),
    }


def chart(rows: pd.DataFrame) -> str:
    """Kinds x methods: the mean recall on both data sets, one above the other, as the text of an SVG."""
    from safetyheads.report.figures.drawing import WIDTH, paper, pens, place, to_svg

    kinds = rows["kind"].nunique()
    left, below, cells, gap = 70, 104, 22 * kinds, 34
    with pens():
        figure = paper(below + 2 * (cells + gap))
        for at, (data, title) in enumerate((("few", "12 of 100 guarded"), ("guarded", "all prompts guarded"))):
            means = rows[rows["data"] == data].pivot_table(index="kind", columns="method", values="recall", sort=False)
            values = means[SHOWN].to_numpy()
            axes = place(figure, left, below + at * (cells + gap), WIDTH - left - 6, cells)
            axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
            axes.set_title(f"Mean recall, {title}", fontsize=9, loc="left")
            names = SHOWN if at == 0 else []
            axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
            axes.set_yticks(range(len(means)), list(means.index), fontsize=8)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            for (y, x), value in np.ndenumerate(values):
                colour = "#000000" if value > 0.6 else "#ffffff"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)
        return to_svg(figure, "Mean recall of the planted heads, by kind of model and method", "attributions")


def with_kept(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """These rows, and those of other models that the file has."""
    rows = rows.round(4)
    if not path.is_file():
        return rows
    kept, model = pd.read_csv(path), ["kind", "seed"]
    others = ~pd.MultiIndex.from_frame(kept[model]).isin(pd.MultiIndex.from_frame(rows[model]))
    return pd.concat([kept[others], rows], ignore_index=True)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows by kind, in the order of their table, and seed; those of a model stay in their order."""
    place = rows["kind"].map({kind: at for at, kind in enumerate(ORGANISMS)})
    return rows.assign(place=place).sort_values(["place", "seed"], kind="stable").drop(columns="place")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind (3)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument(
        "--kinds", nargs="+", choices=list(ORGANISMS), default=list(ORGANISMS), help="kinds of models (all)"
    )
    parser.add_argument("--folder", type=Path, help="keep models and rows there, and take those that are there")
    parser.add_argument("--processes", type=int, default=2, help="models at a time, each on one thread (2)")
    parser.add_argument("--save", action="store_true", help="keep rows, chart and tables")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    with TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = range(given.first, given.first + given.seeds)
        tasks = [(kind, seed, folder) for seed in seeds for kind in given.kinds]
        os.environ["TQDM_DISABLE"] = "1"  # in the processes that follow
        with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
            made = list(tqdm(pool.imap_unordered(one_model, tasks), total=len(tasks), unit="model"))
    rows = pd.DataFrame([row for rows in made for row in rows]).reindex(columns=COLUMNS)
    if given.save:
        rows = with_kept(rows, RESULTS / "attributions.csv")
    rows = in_order(rows)
    tables = tables_of(rows)
    for text in tables.values():
        print(text, end="\n\n")
    if given.save:
        rows.to_csv(RESULTS / "attributions.csv", index=False)
        (RESULTS / "attributions.svg").write_text(chart(rows), encoding="utf-8")
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
