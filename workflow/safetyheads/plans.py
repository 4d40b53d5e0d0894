"""Plans: pure functions from scores to the heads that are ablated for each completion, and how it is decoded.

none        nothing               ships-{n}   each prompt's own n best heads       sahara-{n}  the group of size n
single      every head by itself  random-{n}  n random heads, several draws        other names a set of the config
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, HeadSet, all_heads, check_in_grid

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "plain"
"""The ablation of the model as it is. Its only plan is `none`: made once, it is compared with every ablation."""

PATTERN = re.compile(r"(none|single)|(ships|sahara|random)-([1-9]\d*)(?:@(.+))?")


@dataclass(frozen=True)
class Plan:
    """`kind` is none, ships, sahara, single, random or head_set, `source` the data set that the attribution is from."""

    name: str
    kind: str
    n: int | None = None
    source: str | None = None


@dataclass(frozen=True)
class Decoding:
    """`top_k` 1 is greedy; else one of the k best tokens is drawn at `temperature`, `samples` times per prompt."""

    max_new_tokens: int = 128
    top_k: int = 1
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0


class Assignment(NamedTuple):
    """These heads are ablated while the model answers this query."""

    query_id: str
    variant: str
    heads: HeadSet


def parse_plan(name: str) -> Plan:
    """Read a plan's name; one that matches no pattern is the name of a head set.

    Raises SafetyHeadsError for a malformed one, such as `ships-0` or `ships-2@advbench`.
    """
    match = PATTERN.fullmatch(name)
    if match is None:
        if re.match(r"(none|single|ships|sahara|random)(-\d*)?(@.*)?$", name):
            raise SafetyHeadsError(
                f"{name!r} is not a plan. Plans are none, single, ships-N, sahara-N, sahara-N@dataset, random-N "
                "(N is 1 or more) and the names in head_sets."
            )
        return Plan(name, "head_set")
    word, counted, n, source = match.groups()
    if word:
        return Plan(name, word)
    if source is not None and counted != "sahara":
        raise SafetyHeadsError(
            f"{name!r}: only sahara-N takes its attribution from another data set; {counted} plans do not. "
            f"Write {counted}-{n} or sahara-{n}@{source}."
        )
    return Plan(name, counted, int(n), source)


def check_plan(plan: Plan, heads: HeadSet, grid: tuple[int, int], model: str) -> None:
    """Raise SafetyHeadsError if a model of (layers, heads per layer) `grid` cannot be ablated as `plan` says.

    `heads` are those of the head set that is the plan, else empty.
    """
    layers, per_layer = grid
    if plan.n is not None and plan.n > layers * per_layer:
        raise SafetyHeadsError(
            f"Plan {plan.name!r} asks for {plan.n} heads, but model {model!r} has {layers * per_layer} "
            f"({layers} layers of {per_layer}). Choose at most {layers * per_layer}."
        )
    try:
        check_in_grid(heads, layers, per_layer)
    except SafetyHeadsError as error:
        raise SafetyHeadsError(f"Plan {plan.name!r}, model {model!r}: {error}") from None


def assign(
    plan: Plan,
    query_ids: Sequence[str],
    grid: tuple[int, int],
    *,
    ships: "pd.DataFrame | None" = None,
    sahara: "pd.DataFrame | None" = None,
    heads: HeadSet = (),
    draws: int = 5,
    seed: int = 0,
) -> list[Assignment]:
    """Heads to ablate for each query, in order of variant, then of `query_ids`.

    `grid` is (layers, heads per layer); `ships` and `sahara` are those stages' tables, `heads` a head set, `draws`
    and `seed` belong to `random-{n}`. Raises SafetyHeadsError if the scores do not cover what the plan asks for.
    """
    n = plan.n or 0
    match plan.kind:
        case "none":
            variants: dict[str, HeadSet] = {"none": ()}
        case "single":
            variants = {str(head): (head,) for head in all_heads(*grid)}
        case "head_set":
            variants = {plan.name: tuple(sorted(heads))}
        case "random":
            variants = {f"draw-{draw}": random_heads(n, grid, seed, draw) for draw in range(draws)}
        case "sahara" if sahara is not None:
            variants = {plan.name: sahara_group(sahara, n)}
        case "ships" if ships is not None:
            best = ships_best(ships, n)
            return [Assignment(query, plan.name, _of_query(best, query)) for query in query_ids]
        case _:
            raise SafetyHeadsError(f"Plan {plan.name!r} needs the scores of {plan.kind}.")
    return [Assignment(query, variant, chosen) for variant, chosen in variants.items() for query in query_ids]


def ships_best(ships: "pd.DataFrame", n: int) -> dict[str, HeadSet]:
    """Each query's `n` heads of highest score; of equal ones the lower layer, then the lower head."""
    ranked = ships.sort_values(["query_id", "score", "layer", "head"], ascending=[True, False, True, True])
    top = ranked.groupby("query_id", sort=False, observed=True).head(n)
    return {
        str(query): tuple(sorted(Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"])))
        for query, rows in top.groupby("query_id", sort=False, observed=True)
    }


def sahara_group(sahara: "pd.DataFrame", n: int) -> HeadSet:
    """The group of `n` heads: those selected in the first `n` steps. Raises SafetyHeadsError if fewer were made."""
    chosen = sahara[sahara["selected"] & (sahara["step"] <= n)]
    if len(chosen) < n:
        raise SafetyHeadsError(f"sahara-{n} needs {n} steps of Sahara, but only {len(chosen)} were made.")
    return tuple(sorted(Head(int(layer), int(head)) for layer, head in zip(chosen["layer"], chosen["head"])))


def random_heads(n: int, grid: tuple[int, int], seed: int, draw: int) -> HeadSet:
    """`n` different heads, drawn uniformly; a function of (n, grid, seed, draw) alone, so more draws keep the first."""
    every = all_heads(*grid)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, n, draw])))
    order = np.argsort(generator.random(len(every)), kind="stable")
    return tuple(sorted(every[index] for index in order[:n]))


def in_order(completions: "pd.DataFrame") -> "pd.DataFrame":
    """Completions, of one job or of several shards, in the order of the artefact."""
    return completions.sort_values(["query_id", "variant", "sample"], ignore_index=True)


def _of_query(best: Mapping[str, HeadSet], query: str) -> HeadSet:
    if query not in best:
        raise SafetyHeadsError(f"There are no Ships scores for query {query!r}.")
    return best[query]
