"""Plans: pure functions from scores to head sets."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.chosen_heads import matched, random_heads, sahara_group, ships_best, top_heads
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, all_heads
from safetyheads.plans import RESERVED, Assignment, Plan, assign, check_plan, in_order, like_a_plan, parse_plan

GRID = (3, 4)
QUERIES = ["q-2", "q-0", "q-1"]


def ships_of(scores: dict[str, list[float]], grid: tuple[int, int] = GRID) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"query_id": query, "layer": head.layer, "head": head.head, "score": score}
            for query, values in scores.items()
            for head, score in zip(all_heads(*grid), values)
        ]
    ).astype({"layer": "int16", "head": "int16"})


def sahara_of(chosen: list[Head], grid: tuple[int, int] = GRID) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"step": step, "layer": head.layer, "head": head.head, "score": 1.0, "selected": head == best}
            for step, best in enumerate(chosen, 1)
            for head in all_heads(*grid)
            if head not in chosen[: step - 1]
        ]
    )


SCORES = st.lists(st.lists(st.integers(0, 3).map(float), min_size=12, max_size=12), min_size=1, max_size=4).map(
    lambda rows: {f"q-{number}": row for number, row in enumerate(rows)}
)


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("none", Plan("none", "none")),
        ("single", Plan("single", "single")),
        ("ships-1", Plan("ships-1", "ships", 1)),
        ("ships-12", Plan("ships-12", "ships", 12)),
        ("random-10", Plan("random-10", "random", 10)),
        ("sahara-3", Plan("sahara-3", "sahara", 3)),
        ("sahara-3@advbench", Plan("sahara-3@advbench", "sahara", 3, "advbench")),
        ("sahara-2@a-b.c_d", Plan("sahara-2@a-b.c_d", "sahara", 2, "a-b.c_d")),
        ("mine", Plan("mine", "head_set")),
        ("shipshape", Plan("shipshape", "head_set")),
        ("single_layer", Plan("single_layer", "head_set")),
    ],
)
def test_a_plan_is_read(name: str, plan: Plan) -> None:
    assert parse_plan(name) == plan


@pytest.mark.parametrize(
    "name",
    [
        "ships",
        "ships-",
        "ships-0",
        "ships-01",
        "sahara",
        "sahara-0",
        "sahara-3@",
        "sahara@advbench",
        "random",
        "random-0",
        "none-1",
        "single-2",
        "none@x",
        "single@x",
    ],
)
def test_a_malformed_plan_is_named_with_what_is_allowed(name: str) -> None:
    with pytest.raises(SafetyHeadsError, match=r"is not a plan\. Plans are none, single, ships-N, sahara-N") as caught:
        parse_plan(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("kind", ["ships", "random"])
def test_only_sahara_takes_another_data_set(kind: str) -> None:
    with pytest.raises(SafetyHeadsError, match=f"only sahara-N .*Write {kind}-2 or sahara-2@advbench"):
        parse_plan(f"{kind}-2@advbench")


def test_more_heads_than_the_model_has_are_named() -> None:
    check_plan(parse_plan("ships-12"), (), GRID, "tiny")
    for name in ("ships-13", "sahara-13", "random-13"):
        with pytest.raises(SafetyHeadsError, match=f"'{name}' asks for 13 heads, but model 'tiny' has 12"):
            check_plan(parse_plan(name), (), GRID, "tiny")
    check_plan(parse_plan("mine"), (Head(2, 3),), GRID, "tiny")
    with pytest.raises(SafetyHeadsError, match="'mine', model 'tiny': Head L03H00 does not exist"):
        check_plan(parse_plan("mine"), (Head(0, 0), Head(3, 0)), GRID, "tiny")


def test_none_ablates_nothing() -> None:
    assert assign(parse_plan("none"), QUERIES, GRID) == [Assignment(query, "none", ()) for query in QUERIES]


def test_single_covers_the_grid_for_every_query_in_order() -> None:
    assert assign(parse_plan("single"), QUERIES, GRID) == [
        Assignment(query, str(head), (head,)) for head in all_heads(*GRID) for query in QUERIES
    ]


def test_a_head_set_is_the_same_for_every_query() -> None:
    heads = (Head(2, 1), Head(0, 3))
    assert assign(parse_plan("mine"), QUERIES, GRID, heads=heads) == [
        Assignment(query, "mine", (Head(0, 3), Head(2, 1))) for query in QUERIES
    ]


@given(SCORES, st.integers(1, 12))
def test_ships_takes_each_prompts_own_best_ties_to_the_lowest(scores: dict[str, list[float]], n: int) -> None:
    queries = list(reversed(scores))
    found = assign(parse_plan(f"ships-{n}"), queries, GRID, ships=ships_of(scores).sample(frac=1, random_state=0))
    assert [(one.query_id, one.variant) for one in found] == [(query, f"ships-{n}") for query in queries]
    for one in found:
        ranked = sorted(zip(scores[one.query_id], all_heads(*GRID)), key=lambda pair: (-pair[0], pair[1]))
        assert one.heads == tuple(sorted(head for _, head in ranked[:n]))
        assert all(type(value) is int for head in one.heads for value in head)


@given(SCORES, st.integers(1, 11))
def test_more_ships_heads_keep_the_first(scores: dict[str, list[float]], n: int) -> None:
    table = ships_of(scores)
    fewer, more = ships_best(table, n), ships_best(table, n + 1)
    assert all(set(fewer[query]) < set(more[query]) for query in scores)


@pytest.mark.parametrize("name", ["ships-1", "sahara-1"])
def test_a_plan_without_its_scores_is_named(name: str) -> None:
    with pytest.raises(SafetyHeadsError, match=f"'{name}' needs the scores of {name[:-2]}"):
        assign(parse_plan(name), QUERIES, GRID)


def test_a_query_without_scores_is_named() -> None:
    with pytest.raises(SafetyHeadsError, match="no Ships scores for query 'q-9'"):
        assign(parse_plan("ships-1"), ["q-0", "q-9"], GRID, ships=ships_of({"q-0": [1.0] * 12}))


@given(st.permutations(all_heads(*GRID)), st.integers(1, 5))
def test_sahara_groups_are_the_first_steps_and_nested(order: list[Head], n: int) -> None:
    table = sahara_of(order[:6]).sample(frac=1, random_state=1)
    assert sahara_group(table, n) == tuple(sorted(order[:n]))
    assert set(sahara_group(table, n)) < set(sahara_group(table, n + 1))
    for name in (f"sahara-{n}", f"sahara-{n}@elsewhere"):
        assert assign(parse_plan(name), QUERIES, GRID, sahara=table) == [
            Assignment(query, name, tuple(sorted(order[:n]))) for query in QUERIES
        ]


def test_too_few_steps_are_named() -> None:
    with pytest.raises(SafetyHeadsError, match="sahara-3 needs 3 steps of Sahara, but only 2 were made"):
        sahara_group(sahara_of([Head(0, 0), Head(1, 1)]), 3)


@given(st.integers(1, 12), st.integers(0, 2**40), st.integers(0, 20))
def test_random_heads_are_distinct_and_inside_the_grid(n: int, seed: int, draw: int) -> None:
    heads = random_heads(n, GRID, seed, draw)
    assert len(set(heads)) == n
    assert set(heads) <= set(all_heads(*GRID))
    assert list(heads) == sorted(heads)
    assert heads == random_heads(n, GRID, seed, draw)


def test_more_draws_keep_the_first_and_every_draw_is_for_all_queries() -> None:
    few, many = (assign(parse_plan("random-3"), QUERIES, GRID, draws=draws, seed=7) for draws in (2, 5))
    assert many[: len(few)] == few
    assert [one.variant for one in many] == [f"draw-{draw}" for draw in range(5) for _ in QUERIES]
    sets = {one.variant: one.heads for one in many}
    assert all(one.heads == sets[one.variant] for one in many)
    assert len(set(sets.values())) > 3
    assert {one.heads for one in assign(parse_plan("random-3"), QUERIES, GRID, draws=5, seed=8)} != set(sets.values())


def test_random_heads_are_uniform() -> None:
    counts = dict.fromkeys(all_heads(*GRID), 0)
    for draw in range(1200):
        for head in random_heads(3, GRID, 0, draw):
            counts[head] += 1
    assert all(abs(count - 300) < 75 for count in counts.values())  # 5 standard deviations


def test_completions_are_sorted_by_query_variant_and_sample() -> None:
    table = pd.DataFrame(
        [(query, variant, sample) for sample in (1, 0) for variant in ("b", "a") for query in QUERIES],
        columns=["query_id", "variant", "sample"],
    )
    found = in_order(table)
    keys = list(found.itertuples(index=False, name=None))
    assert keys == sorted(keys)
    assert list(found.index) == list(range(len(table)))
