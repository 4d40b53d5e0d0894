"""Which heads a plan ablates: chosen by scores, or drawn at random as a control. All functions are pure."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING

import numpy as np

from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, HeadSet, all_heads, check_in_grid
from safetyheads.plans import Assignment, Plan, without_draws

if TYPE_CHECKING:
    import pandas as pd


def assign(
    plan: Plan,
    query_ids: Sequence[str],
    grid: tuple[int, int],
    *,
    scores: "pd.DataFrame | None" = None,
    less: "pd.DataFrame | None" = None,
    heads: HeadSet = (),
    draws: int = 5,
    matched: int = 20,
    seed: int = 0,
) -> list[Assignment]:
    """The heads to ablate for each query: for each variant of the plan in turn, one assignment per query.

    `grid` is (layers, heads per layer). The other arguments are each for some plans: `scores` is the table of
    `plan.scores`, `less` is that of the scores that `contrast-{n}` subtracts, and `heads` is a head set.
    `draws` is the number of draws of `random-{n}`, `matched` that of `matched-{p}`, of which there are fewer where no
    more exist, and `seed` fixes both. Raises SafetyHeadsError if the plan's scores are missing, do not cover all
    queries or heads, or if a plan has no matched draws.
    """
    if plan.scores and scores is None:
        raise SafetyHeadsError(f"Plan {plan.name!r} needs the scores of {plan.scores}.")
    variants: dict[str, Sequence[HeadSet]]
    match plan.kind:
        case "single":
            variants = {str(head): [(head,)] * len(query_ids) for head in all_heads(*grid)}
        case "random":
            drawn = [random_heads(plan.n or 0, grid, seed, draw) for draw in range(draws)]
            variants = {f"draw-{draw}": [one] * len(query_ids) for draw, one in enumerate(drawn)}
        case "each":
            own = _heads_of(plan.group, query_ids[:1], scores, less, heads)
            variants = {str(head): [(head,)] * len(query_ids) for chosen in own for head in chosen}
        case "matched":
            own = _heads_of(plan.group, query_ids, scores, less, heads)
            images = matched_draws(own, *grid, matched, seed)
            if not images:
                raise without_draws(plan)
            variants = {f"draw-{draw}": image for draw, image in enumerate(images)}
        case _:
            variants = {plan.name: _heads_of(plan, query_ids, scores, less, heads)}
    return [
        Assignment(query, variant, own) for variant, sets in variants.items() for query, own in zip(query_ids, sets)
    ]


def _heads_of(
    plan: Plan,
    query_ids: Sequence[str],
    scores: "pd.DataFrame | None",
    less: "pd.DataFrame | None",
    heads: HeadSet,
) -> list[HeadSet]:
    """The heads of each query, for a plan that chooses them once. `scores` are those of `plan.scores`, if any."""
    if scores is None or plan.method is None:
        return [tuple(sorted(heads)) if plan.head_set else ()] * len(query_ids)
    if plan.method.per_prompt:
        best = ships_best(scores, plan.n or 0)
        if missing := [query for query in query_ids if query not in best]:
            raise SafetyHeadsError(f"There are no Ships scores for query {missing[0]!r}.")
        return [best[query] for query in query_ids]
    return [group(plan, scores, less)] * len(query_ids)


def group(plan: Plan, scores: "pd.DataFrame", less: "pd.DataFrame | None" = None) -> HeadSet:
    """The heads that a plan chooses for all prompts alike, sorted. `scores` are those of `plan.scores`.

    `less` are the scores that `contrast-{n}` subtracts. Raises SafetyHeadsError if they are needed and missing, or if
    there are not as many heads.
    """
    if plan.method and plan.method.searches:
        return searched_group(scores, plan.n or 0, plan.kind)
    return top_heads(_ranking(plan, scores, less), plan.n or 0)


def filled_in(plan: Plan, scores: "pd.DataFrame", less: "pd.DataFrame | None" = None) -> HeadSet:
    """Those heads of `group` that the method does not name: it was asked for more heads than have a score above 0.

    None for methods that search, or choose for each prompt: they score every head above 0.
    """
    if plan.method is None or plan.method.searches or plan.method.per_prompt:
        return ()
    above = set(named(plan, scores, less))
    return tuple(head for head in group(plan, scores, less) if head not in above)


def named(plan: Plan, scores: "pd.DataFrame", less: "pd.DataFrame | None" = None) -> list[Head]:
    """All heads with a (mean) score above 0, the highest first, for a plan whose method does not search."""
    ranked = _by_score(_ranking(plan, scores, less))
    return _heads(ranked[ranked["score"] > 0])


def _ranking(plan: Plan, scores: "pd.DataFrame", less: "pd.DataFrame | None") -> "pd.DataFrame":
    """The scores by which a plan ranks heads."""
    if not plan.contrasted:
        return scores
    if less is None:
        raise SafetyHeadsError(f"Plan {plan.name!r} needs the scores of {plan.scores} that it subtracts.")
    return contrast(scores, less)


def ships_best(ships: "pd.DataFrame", n: int) -> dict[str, HeadSet]:
    """For each query its `n` heads of highest score. Of heads with equal scores, the lower layer and head come first.

    `ships` has the columns query_id, layer, head and score (nats).
    """
    ranked = ships.sort_values(["query_id", "score", "layer", "head"], ascending=[True, False, True, True])
    top = ranked.groupby("query_id", sort=False, observed=True).head(n)
    return {
        str(query): tuple(sorted(_heads(rows))) for query, rows in top.groupby("query_id", sort=False, observed=True)
    }


def top_heads(scores: "pd.DataFrame", n: int) -> HeadSet:
    """The `n` heads of highest score, or mean score over all queries, sorted. Ties are broken as in `ships_best`.

    `scores` has the columns layer, head and score, and a row for each head, or for each query and head.
    """
    return tuple(sorted(_heads(_by_score(scores).head(n))))


def _by_score(scores: "pd.DataFrame") -> "pd.DataFrame":
    means = scores.groupby(["layer", "head"])["score"].mean().reset_index()
    return means.sort_values(["score", "layer", "head"], ascending=[False, True, True])


def _heads(rows: "pd.DataFrame") -> list[Head]:
    return [Head(int(layer), int(head)) for layer, head in zip(rows["layer"], rows["head"])]


def contrast(ships: "pd.DataFrame", less: "pd.DataFrame") -> "pd.DataFrame":
    """The mean Ships score of each head, less its mean score in `less`: layer, head and score (nats), sorted.

    `less` has the scores of the same model on benign prompts, or of a base model on the same ones. What a head does
    whatever is asked, or did before the model was aligned, is the same in both and gone. Both tables have the columns
    query_id, layer, head and score. Raises SafetyHeadsError if they are about different heads.
    """
    mean, other = (table.groupby(["layer", "head"])["score"].mean() for table in (ships, less))
    if not mean.index.equals(other.index):
        raise SafetyHeadsError(
            f"The scores are of {len(mean)} heads and those to be subtracted of {len(other)}: a contrast needs the "
            "same heads, so two models must have the same shape."
        )
    return (mean - other).reset_index()


def searched_group(scores: "pd.DataFrame", n: int, method: str = "sahara") -> HeadSet:
    """The group of `n` heads that a search selected in its first `n` steps, sorted.

    `scores` has the columns step (from 1), layer, head and selected. Raises SafetyHeadsError if fewer steps were made.
    """
    chosen = searched(scores)[:n]
    if len(chosen) < n:
        raise SafetyHeadsError(f"{method}-{n} needs {n} steps, but only {len(chosen)} were made.")
    return tuple(sorted(chosen))


def searched(scores: "pd.DataFrame") -> list[Head]:
    """The heads that a search selected, in the order of its steps. `scores` are as for `searched_group`."""
    return _heads(scores[scores["selected"].astype(bool)].sort_values("step"))


def random_heads(n: int, grid: tuple[int, int], seed: int, draw: int) -> HeadSet:
    """`n` different heads, drawn uniformly from a model of `grid` (layers, heads per layer), sorted.

    The result depends on the four arguments alone. So if the number of draws is raised later, the first ones stay.
    """
    every = all_heads(*grid)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, n, draw])))
    order = np.argsort(generator.random(len(every)), kind="stable")
    return tuple(sorted(every[index] for index in order[:n]))


def matched_draws(
    chosen: Sequence[HeadSet], layers: int, heads: int, draws: int, seed: int
) -> list[tuple[HeadSet, ...]]:
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
