"""Plans say which heads are ablated while the model answers a prompt. This module turns scores into these heads.

    none        nothing is ablated
    single      every head of the model by itself
    ships-{n}   the n heads of highest Ships score, chosen for each prompt
    sahara-{n}  the group of n heads that Sahara finds, the same for all prompts
    random-{n}  n heads drawn at random, several times: the control
    (other)     a head set of the configuration

All functions are pure. How a completion is decoded is defined here as well.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, HeadSet, all_heads, check_in_grid

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "plain"
"""The name of the ablation that changes nothing. Its only plan is `none`.

Completions of the plain model are made once and compared with those of every ablation.
"""

PATTERN = re.compile(r"(none|single)|(ships|sahara|random)-([1-9]\d*)(?:@(.+))?")


@dataclass(frozen=True)
class Plan:
    """A plan as its name says it.

    `kind` is none, single, ships, sahara, random or head_set, and `n` is the number of heads in the name. `source` is
    the data set whose scores choose the heads, if the name gives another one than that of the prompts:
    `sahara-3@harmful`.
    """

    name: str
    kind: str
    n: int | None = None
    source: str | None = None

    @property
    def paired(self) -> bool:
        """Whether its batches hold plain rows, which their ablated rows are compared with (see `plain_rows`)."""
        return self.kind in ("single", "random")


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    `top_k` 1 is greedy: always the likeliest token. Otherwise each token is drawn from the `top_k` likeliest, whose
    logits are divided by `temperature`, and each prompt is completed `samples` times. `seed` fixes the draws.
    """

    max_new_tokens: int = 128
    top_k: int = 1
    temperature: float = 1.0
    samples: int = 1
    seed: int = 0


class Assignment(NamedTuple):
    """One completion to make: `heads` are ablated while the model answers the query `query_id`.

    `variant` tells the head sets of one plan apart, such as `L02H26` of `single` or `draw-1` of `random-3`.
    """

    query_id: str
    variant: str
    heads: HeadSet


def parse_plan(name: str) -> Plan:
    """What the name of a plan says. A name that looks like no other plan is that of a head set.

    Raises SafetyHeadsError for a name that looks like a plan but is not one: `ships-0` has no heads, and
    `ships-2@advbench` names a data set although Ships scores each prompt by itself.
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
    """Raise SafetyHeadsError if `model` does not have the heads that `plan` needs.

    `grid` is the model's (layers, heads per layer). `heads` are those of the head set if the plan is one, else empty.
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
    """The heads to ablate for each query: for each variant of the plan in turn, one assignment per query.

    `grid` is (layers, heads per layer). The other arguments are each for one kind of plan: `ships` and `sahara` are the
    tables of these stages, `heads` is a head set, and `draws` and `seed` are the number of draws of `random-{n}` and
    their seed. Raises SafetyHeadsError if the plan's scores are missing, or do not cover all queries or heads.
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
    """For each query its `n` heads of highest score. Of heads with equal scores, the lower layer and head come first.

    `ships` has the columns query_id, layer, head and score (nats).
    """
    ranked = ships.sort_values(["query_id", "score", "layer", "head"], ascending=[True, False, True, True])
    top = ranked.groupby("query_id", sort=False, observed=True).head(n)
    return {
        str(query): tuple(sorted(Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"])))
        for query, rows in top.groupby("query_id", sort=False, observed=True)
    }


def sahara_group(sahara: "pd.DataFrame", n: int) -> HeadSet:
    """The group of `n` heads that Sahara selected in its first `n` steps, sorted.

    `sahara` has the columns step (from 1), layer, head and selected. Raises SafetyHeadsError if fewer steps were made.
    """
    chosen = sahara[sahara["selected"] & (sahara["step"] <= n)]
    if len(chosen) < n:
        raise SafetyHeadsError(f"sahara-{n} needs {n} steps of Sahara, but only {len(chosen)} were made.")
    return tuple(sorted(Head(int(layer), int(head)) for layer, head in zip(chosen["layer"], chosen["head"])))


def random_heads(n: int, grid: tuple[int, int], seed: int, draw: int) -> HeadSet:
    """`n` different heads, drawn uniformly from a model of `grid` (layers, heads per layer), sorted.

    The result depends on the four arguments alone. So if the number of draws is raised later, the first ones stay.
    """
    every = all_heads(*grid)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, n, draw])))
    order = np.argsort(generator.random(len(every)), kind="stable")
    return tuple(sorted(every[index] for index in order[:n]))


def matched(chosen: Sequence[HeadSet], layers: int, heads: int, draws: int, seed: int) -> list[tuple[HeadSet, ...]]:
    """Control draws for a plan that ablates the heads `chosen[i]` for prompt i: for each draw, its heads per prompt.

    A draw permutes the heads of each layer, and does so for all prompts alike. So it ablates as many heads of each
    layer as the plan does, and prompts that share heads still share them. No draw ablates the heads of the plan, or of
    an earlier draw, for every prompt. There are `draws` of them, or all that exist if these are fewer: 7 for one head
    of a layer of 8, and none for a plan that ablates whole layers.

    A permutation follows from `seed`, its number and the layer alone. So if `draws` is raised later, the first ones
    stay. The model has `layers` layers of `heads` heads. Raises SafetyHeadsError for heads that it does not have.
    """
    plan = tuple(tuple(sorted(prompt)) for prompt in chosen)
    for prompt in plan:
        check_in_grid(prompt, layers, heads)
    used = sorted({head.layer for prompt in plan for head in prompt})
    wanted = min(draws, _images(plan, heads) - 1)
    found: dict[tuple[HeadSet, ...], None] = {}
    # All images of the plan are equally likely. Even if every one of T is wanted, the last is found after about
    # T log T numbers, so this range is a guard that is never reached.
    for number in range(1000 * (wanted + 1)):
        if len(found) == wanted:
            break
        places = {layer: _permutation(seed, number, layer, heads) for layer in used}
        image = tuple(tuple(sorted(Head(layer, places[layer][head]) for layer, head in prompt)) for prompt in plan)
        if image != plan:
            found[image] = None
    return list(found)


def _images(plan: Sequence[HeadSet], heads: int) -> int:
    """How many different things become of `plan` if the `heads` heads of each layer are permuted, itself included.

    What counts of a head is the set of prompts that ablate it: to swap two heads of the same prompts changes nothing.
    """
    prompts_of: dict[Head, set[int]] = {}
    for number, prompt in enumerate(plan):
        for head in prompt:
            prompts_of.setdefault(head, set()).add(number)
    alike = Counter((head.layer, frozenset(prompts)) for head, prompts in prompts_of.items())
    images, left = 1, dict.fromkeys((head.layer for head in prompts_of), heads)
    for (layer, _), members in alike.items():
        images *= comb(left[layer], members)
        left[layer] -= members
    return images


def _permutation(seed: int, number: int, layer: int, heads: int) -> list[int]:
    """Where the permutation `number` puts each head of a layer."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number, layer])))
    return [int(place) for place in np.argsort(generator.random(heads), kind="stable")]


def _of_query(best: Mapping[str, HeadSet], query: str) -> HeadSet:
    if query not in best:
        raise SafetyHeadsError(f"There are no Ships scores for query {query!r}.")
    return best[query]
