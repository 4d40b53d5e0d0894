"""Plans: pure functions from scores to head sets."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.chosen_heads import assign, matched_draws, random_heads, searched_group, ships_best, top_heads
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, all_heads
from safetyheads.plans import RESERVED, Assignment, Plan, check_plan, like_a_plan, parse_plan

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
        ("top-4", Plan("top-4", "top", 4)),
        ("top-4@advbench", Plan("top-4@advbench", "top", 4, "advbench")),
        ("matched-ships-2", Plan("matched-ships-2", "matched", 2, None, Plan("ships-2", "ships", 2))),
        (
            "matched-sahara-2@advbench",
            Plan("matched-sahara-2@advbench", "matched", 2, "advbench", parse_plan("sahara-2@advbench")),
        ),
        ("matched-top-3", Plan("matched-top-3", "matched", 3, None, Plan("top-3", "top", 3))),
        ("matched-mine", Plan("matched-mine", "matched", None, None, Plan("mine", "head_set"))),
        ("each-sahara-2", Plan("each-sahara-2", "each", 2, None, Plan("sahara-2", "sahara", 2))),
        ("each-top-3@a", Plan("each-top-3@a", "each", 3, "a", Plan("top-3@a", "top", 3, "a"))),
        ("each-mine", Plan("each-mine", "each", None, None, Plan("mine", "head_set"))),
        ("topical", Plan("topical", "head_set")),
        ("randomised", Plan("randomised", "head_set")),
        ("matching-heads", Plan("matching-heads", "head_set")),
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
        "top",
        "top-0",
        "top-2@",
        "top-x",
        "ships-x",
        "plain",
        "plain-1",
        "gradient-0",
        "Single",
    ],
)
def test_a_malformed_plan_is_named_with_what_is_allowed(name: str) -> None:
    with pytest.raises(SafetyHeadsError, match=r"is not a plan\. Plans are none, single, ships-N, sahara-N") as caught:
        parse_plan(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("kind", ["ships", "random"])
def test_only_groups_of_a_data_set_are_taken_from_another(kind: str) -> None:
    with pytest.raises(SafetyHeadsError, match=f"only sahara, top, .* choose .*Write {kind}-2, or .*top-2@advbench"):
        parse_plan(f"{kind}-2@advbench")


@pytest.mark.parametrize("kind", ["matched", "each"])
@pytest.mark.parametrize(
    "of",
    [
        "",
        "none",
        "single",
        "random-2",
        "each-top-2",
        "matched-top-2",
        "top-0",
        "top",
        "ships-2@other",
        "plain",
        "top-x",
    ],
)
def test_what_no_control_and_no_map_is_made_of_is_told_with_what_is_allowed(kind: str, of: str) -> None:
    said = {"matched": "ships-N, sahara-N", "each": "by itself, which is sahara-N"}[kind]
    with pytest.raises(SafetyHeadsError, match=f"'{kind}-{of}' is not a plan: {kind}-P .*{said}.*name in head_sets"):
        parse_plan(f"{kind}-{of}")


def test_heads_that_differ_between_prompts_have_no_map() -> None:
    with pytest.raises(SafetyHeadsError, match="'each-ships-3' is not a plan: the heads of ships-3 differ.*`single`"):
        parse_plan("each-ships-3")


@pytest.mark.parametrize("word", RESERVED)
def test_what_begins_like_a_plan_is_one_and_what_goes_on_otherwise_is_not(word: str) -> None:
    assert all(like_a_plan(name) for name in (word, f"{word}-", f"{word}-3", f"{word}-x", f"{word}@x", word.title()))
    assert not any(like_a_plan(name) for name in (f"{word}ical", f"{word}_x", f"{word}.x", f"my-{word}", f"a{word}"))


@pytest.mark.parametrize(
    ("name", "scores", "head_set", "paired"),
    [
        ("none", None, None, False),
        ("single", None, None, True),
        ("random-2", None, None, True),
        ("ships-2", "ships", None, False),
        ("top-2@other", "ships", None, False),
        ("sahara-2", "sahara", None, False),
        ("mine", None, "mine", False),
        ("matched-ships-2", "ships", None, True),
        ("matched-sahara-2@other", "sahara", None, True),
        ("matched-mine", None, "mine", True),
        ("each-top-2", "ships", None, True),
        ("each-mine", None, "mine", True),
    ],
)
def test_a_plan_says_what_it_needs(name: str, scores: str | None, head_set: str | None, paired: bool) -> None:
    plan = parse_plan(name)
    assert (plan.scores, plan.head_set, plan.paired) == (scores, head_set, paired)
    assert plan.has_effects == (not paired and name != "none")
    assert plan.source == (name.partition("@")[2] or None)


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        *[(name, [name]) for name in ("none", "random-2", "mine", "sahara-2@other", "top-1@other")],
        *[(name, [f"{name}@a", f"{name}@b"]) for name in ("sahara-2", "top-1")],
        *[(name, []) for name in ("single", "ships-2", "matched-top-2", "matched-mine", "each-mine", "each-top-1@a")],
    ],
)
def test_on_benign_data_sets_heads_come_from_the_other_ones(name: str, measured: list[str]) -> None:
    assert parse_plan(name).on_benign(["a", "b"]) == measured
    assert parse_plan(name).on_benign([]) == [one for one in measured if one == name]


def test_more_heads_than_the_model_has_are_named() -> None:
    check_plan(parse_plan("ships-12"), (), GRID, "tiny")
    for name in ("ships-13", "sahara-13", "random-13", "top-13@x", "matched-top-13", "each-sahara-13"):
        with pytest.raises(SafetyHeadsError, match=f"'{name}' asks for 13 heads, but model 'tiny' has 12"):
            check_plan(parse_plan(name), (), GRID, "tiny")
    check_plan(parse_plan("mine"), (Head(2, 3),), GRID, "tiny")
    with pytest.raises(SafetyHeadsError, match="'mine', model 'tiny': Head L03H00 does not exist"):
        check_plan(parse_plan("mine"), (Head(0, 0), Head(3, 0)), GRID, "tiny")


@pytest.mark.parametrize("name", ["matched-top-12", "matched-sahara-12@x", "matched-ships-12", "matched-mine"])
def test_a_control_of_whole_layers_is_refused_before_anything_is_computed(name: str) -> None:
    layer = tuple(Head(1, head) for head in range(4))
    with pytest.raises(SafetyHeadsError, match=f"'{name}' has no draws: {name[8:]} ablates all heads.*fewer heads"):
        check_plan(parse_plan(name), layer if name.endswith("mine") else (), GRID, "tiny")
    check_plan(parse_plan("matched-mine"), (*layer, Head(2, 0)), GRID, "tiny")


def test_none_ablates_nothing() -> None:
    nothing = [Assignment(query, "none", ()) for query in QUERIES]
    assert assign(parse_plan("none"), QUERIES, GRID) == nothing
    assert assign(parse_plan("none"), QUERIES, GRID, heads=(Head(0, 1),)) == nothing, "heads are for head sets"


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
    found = assign(parse_plan(f"ships-{n}"), queries, GRID, scores=ships_of(scores).sample(frac=1, random_state=0))
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


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *[(name, "ships") for name in ("ships-1", "top-1", "matched-ships-2", "each-top-2@x")],
        *[(name, "sahara") for name in ("sahara-1", "matched-sahara-1", "each-sahara-1@x")],
    ],
)
def test_a_plan_without_its_scores_is_named(name: str, stage: str) -> None:
    with pytest.raises(SafetyHeadsError, match=f"'{name}' needs the scores of {stage}"):
        assign(parse_plan(name), QUERIES, GRID)


@pytest.mark.parametrize("name", ["ships-1", "matched-ships-1"])
def test_a_query_without_scores_is_named(name: str) -> None:
    with pytest.raises(SafetyHeadsError, match="no Ships scores for query 'q-9'"):
        assign(parse_plan(name), ["q-0", "q-9"], GRID, scores=ships_of({"q-0": [1.0] * 12}))


@given(SCORES, st.integers(1, 12))
def test_top_has_the_heads_of_highest_mean_score_ties_to_the_lowest(scores: dict[str, list[float]], n: int) -> None:
    table = ships_of(scores).sample(frac=1, random_state=0)
    sums = [sum(values) for values in zip(*scores.values())]
    ranked = sorted(zip(sums, all_heads(*GRID)), key=lambda pair: (-pair[0], pair[1]))
    best = tuple(sorted(head for _, head in ranked[:n]))
    assert top_heads(table, n) == best
    for name in (f"top-{n}", f"top-{n}@elsewhere"):
        found = assign(parse_plan(name), QUERIES, GRID, scores=table)
        assert found == [Assignment(query, name, best) for query in QUERIES]


def test_top_is_what_pandas_ranks_first() -> None:
    rng = np.random.default_rng(0)
    table = ships_of({f"q-{number}": rng.gamma(0.3, size=12).tolist() for number in range(30)})
    means = table.pivot_table(index=["layer", "head"], values="score", aggfunc="mean")["score"]
    assert set(top_heads(table, 5)) == set(means.nlargest(5).index)


@given(SCORES, st.integers(1, 3), st.integers(0, 1000))
def test_every_draw_has_the_layers_of_its_plan_for_each_prompt(
    scores: dict[str, list[float]], n: int, seed: int
) -> None:
    table, queries = ships_of(scores), list(reversed(scores))
    for name in (f"ships-{n}", f"top-{n}"):
        own = {one.query_id: one.heads for one in assign(parse_plan(name), queries, GRID, scores=table)}
        found = assign(parse_plan(f"matched-{name}"), queries, GRID, scores=table, matched=7, seed=seed)
        draws = {one.variant: {} for one in found}
        for one in found:
            assert Counter(head.layer for head in one.heads) == Counter(head.layer for head in own[one.query_id])
            draws[one.variant][one.query_id] = one.heads
        assert list(draws) == [f"draw-{draw}" for draw in range(len(draws))]
        assert all(set(draw) == set(queries) for draw in draws.values())
        different = {tuple(draw[query] for query in queries) for draw in draws.values()}
        assert len(different) == len(draws) >= 1
        assert tuple(own[query] for query in queries) not in different


def test_matched_draws_follow_from_the_seed_and_the_first_stay() -> None:
    heads = (Head(0, 1), Head(2, 3))
    three, ten, other = (
        assign(parse_plan("matched-mine"), QUERIES, GRID, heads=heads, matched=count, seed=seed, draws=1)
        for count, seed in ((3, 0), (10, 0), (10, 1))
    )
    assert ten[: len(three)] == three
    assert len(ten) == len(other) == 10 * len(QUERIES)
    assert ten != other
    assert ten == assign(parse_plan("matched-mine"), QUERIES, GRID, heads=heads[::-1], matched=10)
    sets = [draw[0] for draw in matched_draws([tuple(sorted(heads))] * len(QUERIES), *GRID, 10, 0)]
    assert [one.heads for one in ten] == [each for each in sets for _ in QUERIES]


def test_there_are_no_more_draws_than_exist_and_none_is_an_error() -> None:
    one = assign(parse_plan("matched-sahara-1"), QUERIES, GRID, scores=sahara_of([Head(1, 2)]))
    assert {each.heads for each in one} == {(Head(1, head),) for head in (0, 1, 3)}
    assert {each.variant for each in one} == {"draw-0", "draw-1", "draw-2"}
    layer = sahara_of([Head(1, head) for head in range(4)])
    with pytest.raises(SafetyHeadsError, match="'matched-sahara-4@x' has no draws: sahara-4@x ablates all heads"):
        assign(parse_plan("matched-sahara-4@x"), QUERIES, GRID, scores=layer)


def test_each_has_every_head_of_a_group_by_itself_as_single_has() -> None:
    group = [Head(2, 1), Head(0, 3)]
    scores = [float(head in group) for head in all_heads(*GRID)]
    every = assign(parse_plan("single"), QUERIES, GRID)
    expected = [one for one in every if one.heads[0] in group]
    assert len(expected) == 2 * len(QUERIES)
    assert assign(parse_plan("each-mine"), QUERIES, GRID, heads=tuple(group)) == expected
    assert assign(parse_plan("each-sahara-2"), QUERIES, GRID, scores=sahara_of(group)) == expected
    # The scores of another data set, whose queries are others.
    assert assign(parse_plan("each-top-2@x"), QUERIES, GRID, scores=ships_of({"x-0": scores})) == expected


@given(st.permutations(all_heads(*GRID)), st.integers(1, 5))
def test_searched_groups_are_the_first_steps_and_nested(order: list[Head], n: int) -> None:
    table = sahara_of(order[:6]).sample(frac=1, random_state=1)
    assert searched_group(table, n) == tuple(sorted(order[:n]))
    assert set(searched_group(table, n)) < set(searched_group(table, n + 1))
    for name in (f"sahara-{n}", f"sahara-{n}@elsewhere"):
        assert assign(parse_plan(name), QUERIES, GRID, scores=table) == [
            Assignment(query, name, tuple(sorted(order[:n]))) for query in QUERIES
        ]


def test_too_few_steps_are_named() -> None:
    with pytest.raises(SafetyHeadsError, match="sahara-3 needs 3 steps, but only 2 were made"):
        searched_group(sahara_of([Head(0, 0), Head(1, 1)]), 3)


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
