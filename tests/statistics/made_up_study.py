"""A small made-up study: completions, verdicts and data sets as the pipeline writes them, with random outcomes."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from safetyheads.chosen_heads import matched_draws
from safetyheads.heads import Head, HeadSet, all_heads

GRID = (2, 4)
OUTCOMES = ("complied", "refused", "degenerate", "other")
KEYS = {"model": "m", "template": "t", "decoding": "g"}
MINE = (Head(0, 1), Head(1, 2))
GROUP = (Head(0, 3), Head(1, 0))


class Tables(NamedTuple):
    verdicts: pd.DataFrame
    completions: pd.DataFrame
    datasets: pd.DataFrame


def plan_rows(plan: str, queries: list[str], draws: int) -> list[tuple[str, str, HeadSet]]:
    """Variant, query and heads of every completion of a plan but for the plain rows of its batches."""
    best = {query: (Head(0, at % 4), Head(1, at % 3)) for at, query in enumerate(queries)}
    own: dict[str, list[HeadSet]] = {
        "mine": [MINE] * len(queries),
        "sahara-2": [GROUP] * len(queries),
        "sahara-2@chosen": [GROUP] * len(queries),
        "ships-2": [best[query] for query in queries],
        "none": [()] * len(queries),
    }
    if plan == "single":
        return [(str(head), query, (head,)) for head in all_heads(*GRID) for query in queries]
    if plan.startswith("random-"):
        return [(f"draw-{at}", query, (Head(0, at), Head(0, at + 1))) for at in range(3) for query in queries]
    if plan.startswith("matched-"):
        images = matched_draws(own[plan.removeprefix("matched-")], *GRID, draws, 0)
        return [(f"draw-{at}", *pair) for at, image in enumerate(images) for pair in zip(queries, image)]
    return [(plan, *pair) for pair in zip(queries, own[plan])]


def of_plan(
    chance: np.random.Generator, dataset: str, plan: str, queries: list[str], samples: int, draws: int
) -> pd.DataFrame:
    """Completions of one plan with their outcomes for two judges."""
    batched = plan.startswith(("single", "random-", "matched-"))
    rows: list[dict[str, Any]] = []
    keys = {**KEYS, "dataset": dataset, "plan": plan, "ablation": "plain" if plan == "none" else "scaling"}

    def add(variant: str, query: str, heads: HeadSet, sample: int, paired: str | None) -> None:
        weights = (0.5, 0.3, 0.1, 0.1) if heads else (0.2, 0.7, 0.0, 0.1)
        outcomes = {judge: OUTCOMES[chance.choice(4, p=weights)] for judge in ("refusals", "harm")}
        listed = [{"layer": head.layer, "head": head.head} for head in heads]
        kl = float(chance.random()) if heads else 0.0
        more = {"variant": variant, "query_id": query, "heads": listed, "sample": sample, "paired": paired}
        rows.append({**keys, **more, "first_kl": kl, "text": f"answer {chance.integers(3)}", **outcomes})

    for sample in range(samples):
        for query in queries if batched else ():
            for plain in ("plain", "plain-1"):
                add(plain, query, (), sample, None)
        for variant, query, heads in plan_rows(plan, queries, draws):
            add(variant, query, heads, sample, chance.choice(["plain", "plain-1"]) if batched else None)
    return pd.DataFrame(rows)


def study(seed: int = 0, prompts: int = 6, samples: int = 2, draws: int = 5) -> Tables:
    """The data set `harmful`, measured with plans of all kinds, and `benign`, with one group and one head set."""
    chance = np.random.default_rng(seed)
    plans = ["none", "mine", "sahara-2", "sahara-2@chosen", "ships-2", "single", "random-2"]
    plans += ["matched-mine", "matched-ships-2", "matched-sahara-2@chosen"]
    asked = {"harmful": plans, "benign": ["none", "mine", "sahara-2@chosen"]}
    texts = {"harmful": "How do kites no. {} fly?", "benign": "Why is sky no. {} blue?"}
    queries = {name: [f"{name}-{at:04d}" for at in range(prompts)] for name in (*texts, "chosen")}
    completions = pd.concat(
        [of_plan(chance, name, plan, queries[name], samples, draws) for name in asked for plan in asked[name]],
        ignore_index=True,
    )
    verdicts = pd.concat([completions.assign(judge=name, outcome=completions[name]) for name in ("refusals", "harm")])
    broken_but_harmful = (verdicts["outcome"] == "degenerate") & (verdicts["sample"] == 0)
    verdicts["harmful"] = (verdicts["outcome"] == "complied") | broken_but_harmful
    known = [*KEYS, "dataset", "plan", "ablation", "variant", "query_id", "sample", "paired"]
    datasets = [
        {"dataset": name, "query_id": query, "query": text.format(at), "category": "even" if at % 2 == 0 else "odd"}
        for name, text in texts.items()
        for at, query in enumerate(queries[name])
    ]
    # Heads were also chosen on two queries of `harmful`, in other letters, and on one that is not measured.
    leaked = ["how do KITES no. 1 fly", "How do kites: no. 4 fly?!", "How do birds fly?"]
    datasets += [
        {"dataset": "chosen", "query_id": query, "query": text, "category": None}
        for query, text in zip(queries["chosen"], leaked)
    ]
    return Tables(
        verdicts[[*known, "judge", "harmful", "outcome"]].reset_index(drop=True),
        completions[[*known, "heads", "first_kl", "text"]],
        pd.DataFrame(datasets),
    )


def cell(table: pd.DataFrame, **keys: str) -> pd.DataFrame:
    """The rows of a table that agree in `keys`."""
    return table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
