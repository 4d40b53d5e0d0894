"""Matched draws: a plan's heads permuted within each layer, for all prompts alike."""

from collections import Counter
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.chosen_heads import matched_draws
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Head, HeadSet, all_heads

LAYERS, HEADS = 2, 4
PLANS = st.lists(
    st.sets(st.sampled_from(all_heads(LAYERS, HEADS)), max_size=4).map(lambda prompt: tuple(sorted(prompt))),
    min_size=1,
    max_size=4,
)

FIRST = [
    ((Head(0, 3), Head(2, 6)),),
    ((Head(0, 7), Head(2, 5)),),
    ((Head(0, 3), Head(2, 2)),),
    ((Head(0, 6), Head(2, 7)),),
]


def every_image(plan: list[HeadSet]) -> set[tuple[HeadSet, ...]]:
    """All that permutations within the layers make of a plan, by trying each of them."""
    return {
        tuple(tuple(sorted(Head(layer, orders[layer][head]) for layer, head in prompt)) for prompt in plan)
        for orders in product(permutations(range(HEADS)), repeat=LAYERS)
    }


@given(PLANS, st.integers(0, 40), st.integers(0, 10**6))
def test_draws_are_different_permutations_of_the_plan_and_never_the_plan(
    plan: list[HeadSet], draws: int, seed: int
) -> None:
    found = matched_draws(plan, LAYERS, HEADS, draws, seed)
    others = every_image(plan) - {tuple(plan)}
    assert len(set(found)) == len(found) == min(draws, len(others))
    assert set(found) <= others


@given(PLANS, st.integers(0, 1000))
def test_every_draw_keeps_the_layers_of_each_prompt_and_the_heads_that_prompts_share(
    plan: list[HeadSet], seed: int
) -> None:
    for draw in matched_draws(plan, LAYERS, HEADS, 5, seed):
        for own, other in zip(plan, draw):
            assert Counter(head.layer for head in own) == Counter(head.layer for head in other)
        for one, two in product(range(len(plan)), repeat=2):
            assert len(set(plan[one]) & set(plan[two])) == len(set(draw[one]) & set(draw[two]))


@pytest.mark.parametrize("seed", range(20))
def test_all_that_exist_are_taken_where_they_are_fewer_than_wanted(seed: int) -> None:
    one = matched_draws([(Head(1, 3),)] * 6, 3, 8, 20, seed)
    assert {draw[0] for draw in one} == {(Head(1, head),) for head in range(8) if head != 3}
    assert len(one) == 7
    assert len(matched_draws([(Head(0, 1), Head(2, 5))], 3, 8, 199, seed)) == 63
    assert len(matched_draws([(Head(0, 1), Head(0, 5))], 3, 8, 199, seed)) == 27
    assert len(matched_draws([(Head(0, 1),), (Head(0, 5),)], 3, 8, 199, seed)) == 55


def test_a_plan_of_whole_layers_or_of_no_heads_has_no_draws() -> None:
    assert matched_draws([tuple(Head(1, head) for head in range(8))] * 3, 3, 8, 20, 0) == []
    assert matched_draws([(), ()], 3, 8, 20, 0) == []


def test_more_draws_keep_the_first_ones_and_another_seed_gives_others() -> None:
    plan = [(Head(0, 1), Head(2, 5)), (Head(0, 2), Head(0, 3))]
    twenty = matched_draws(plan, 3, 8, 20, 7)
    assert matched_draws(plan, 3, 8, 5, 7) == twenty[:5]
    assert matched_draws(plan, 3, 8, 20, 8) != twenty


def test_draws_are_the_same_in_every_version_of_numpy() -> None:
    """The counter-based generator's numbers, written down: if they change, the control of old results is another."""
    assert matched_draws([(Head(0, 1), Head(2, 5))], 3, 8, 4, 0) == FIRST


def test_heads_that_the_model_lacks_are_an_error() -> None:
    with pytest.raises(SafetyHeadsError, match="Head L00H08 does not exist"):
        matched_draws([(Head(0, 8),)], 3, 8, 20, 0)


def test_all_images_are_drawn_equally_often() -> None:
    first = Counter(matched_draws([(Head(0, 1),)], 1, 8, 1, seed)[0] for seed in range(2100))
    assert len(first) == 7
    assert all(240 < count < 360 for count in first.values()), first
