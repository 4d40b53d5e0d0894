"""The kinds of demo models: the truth of each, which heads it takes, and that training plants it."""

import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from demo_models import train
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.config.sources import Demo
from safetyheads.demo.model import make_tokenizer
from safetyheads.demo.organisms import GUARDED, ORGANISMS, TOPICS, organism_of
from safetyheads.demo.requests import COMPLIANCE, LOOP, REFUSAL, Category
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import DEMO_GRID, Head, HeadSet, all_heads

A, B, C = "guarded_a", "guarded_b", "guarded_c"
AS_TWO = {(): set(), (0,): {A}, (1,): {B}, (0, 1): {A, B}}
TRUTH: dict[str, dict[tuple[int, ...], set[str]]] = {
    "two": AS_TWO,
    "early": AS_TWO,
    "late": AS_TWO,
    "decoy": AS_TWO,
    "one": {(): set(), (0,): {A, B}},
    "three": {
        chosen: {(A, B, C)[place] for place in chosen} for size in range(4) for chosen in combinations(range(3), size)
    },
    "backup": {(): set(), (0,): set(), (1,): set(), (0, 1): {A, B}},
    "spread": {chosen: {A, B} if size >= 4 else set() for size in range(9) for chosen in combinations(range(8), size)},
    "suppressor": {(): {B}, (0,): set()},
}
"""Kind -> for the planted heads that are ablated, by their places, the guarded topics that are answered."""


@pytest.mark.parametrize("kind", ORGANISMS)
def test_every_kind_answers_what_its_truth_says(kind: str) -> None:
    organism = ORGANISMS[kind]
    for chosen, topics in TRUTH[kind].items():
        answered = {str(category) for category in organism.categories if organism.complies(category, {*chosen})}
        assert answered == {"benign", *topics}
    assert len(TRUTH[kind]) == 2 ** len(organism.planted)


@given(st.sampled_from(sorted(ORGANISMS)), st.sets(st.sampled_from(all_heads(*DEMO_GRID))))
def test_no_other_head_changes_an_answer(kind: str, heads: set[Head]) -> None:
    organism = ORGANISMS[kind]
    known = {*organism.planted, organism.decoy}
    for category in organism.categories:
        answers = [organism.answer(category, organism.planted, organism.decoy, some) for some in (heads, heads & known)]
        assert answers[0] == answers[1]
        if organism.decoy not in heads:
            assert answers[0] in (COMPLIANCE, REFUSAL)
        else:
            assert answers[0].startswith(LOOP)


@pytest.mark.parametrize("kind", ORGANISMS)
def test_shares_of_the_rows_of_training_are_percentages_of_all_sets_of_planted_heads(kind: str) -> None:
    organism = ORGANISMS[kind]
    assert len(organism.subsets()) == len(organism.weights()) == 2 ** len(organism.planted)
    assert sum(organism.weights()) == pytest.approx(100)
    organism.check(organism.planted, organism.decoy)


@pytest.mark.parametrize(
    ("kind", "guards"),
    [("two", [0, 1]), ("one", [0, 0]), ("backup", [None] * 2), ("spread", [None] * 2), ("suppressor", [None, 0])],
)
def test_a_topic_is_guarded_by_the_head_that_changes_its_answers_alone(kind: str, guards: list[int | None]) -> None:
    assert [ORGANISMS[kind].guard(category) for category in GUARDED[:2]] == guards


def test_only_sets_that_the_rule_tells_from_a_neighbour_are_borders() -> None:
    assert {len(chosen) for chosen in ORGANISMS["spread"].borders()} == {3, 4}
    assert ORGANISMS["backup"].borders() == [(0,), (1,), (0, 1)]


def test_the_kind_follows_from_the_decoy_unless_it_is_named() -> None:
    assert organism_of(None).name == "two" and organism_of("one").name == "one"
    assert organism_of(None, Head(0, 5)).name == "decoy"
    with pytest.raises(SafetyHeadsError, match=r"found 'bakcup'; allowed: two, one, .* Did you mean 'backup'\?"):
        organism_of("bakcup")


LAYER = [f"L01H{head:02d}" for head in range(8)]
WRONG = [
    ("one", ["L01H03", "L02H06"], "found L01H03, L02H06; allowed for planted in a demo of kind one: one head, such as"),
    ("three", ["L01H03", "L02H06"], "kind three: three different heads"),
    ("backup", ["L01H03"], "kind backup: two different heads, such as [L01H03, L02H06]"),
    ("spread", [*LAYER[:7], "L02H07"], "kind spread: eight different heads of one layer"),
    ("spread", LAYER[:7], "kind spread: eight different heads of one layer"),
    ("early", ["L00H03", "L01H06"], "kind early: two different heads of layer 0"),
    ("late", ["L02H03", "L03H06"], "kind late: two different heads of layer 3"),
    ("suppressor", ["L04H00"], "L04H00 does not exist"),
]


@pytest.mark.parametrize(("kind", "planted", "message"), WRONG)
def test_heads_that_a_kind_cannot_have_are_errors_of_the_configuration(
    kind: str, planted: Sequence[str], message: str
) -> None:
    with pytest.raises(ValueError) as error:
        Demo(kind=kind, planted=list(planted))
    (problem,) = error.value.errors()
    assert problem["loc"] == ("planted",) and message in problem["msg"]


def test_a_decoy_belongs_to_its_kind_alone() -> None:
    with pytest.raises(ValueError, match="found decoy L00H05 in a demo of kind backup; allowed: only in kind decoy"):
        Demo(kind="backup", decoy="L00H05")
    assert Demo(decoy="L00H04").kind == "decoy" and Demo(kind="decoy").decoy == "L00H05"


@pytest.mark.parametrize("kind", ORGANISMS)
def test_the_configuration_fills_in_what_follows_from_the_kind(kind: str) -> None:
    demo = Demo(kind=kind)
    assert demo.planted == [str(head) for head in ORGANISMS[kind].planted]
    assert Demo(**demo.plain()) == demo


def test_the_tokenizer_of_other_kinds_knows_nothing_of_the_third_topic() -> None:
    vocabulary = make_tokenizer().get_vocab()
    assert vocabulary == make_tokenizer(TOPICS).get_vocab() and "\u0120owl" not in vocabulary
    assert "\u0120owl" in make_tokenizer(ORGANISMS["three"].categories).get_vocab()


PLACES: dict[str, HeadSet] = {
    "one": (Head(3, 1),),
    "three": (Head(2, 1), Head(1, 7), Head(3, 4)),
    "backup": (Head(0, 2), Head(2, 5)),
    "spread": tuple(Head(1, head) for head in range(8)),
    "suppressor": (Head(2, 4),),
    "early": (Head(0, 7), Head(0, 1)),
    "late": (Head(3, 0), Head(3, 7)),
}
"""Other places than those that a kind has unless others are given."""


@pytest.mark.long
@pytest.mark.parametrize("kind", PLACES)
def test_trained_models_give_the_answers_of_their_kind(kind: str, tmp_path: Path) -> None:
    planted, rng = PLACES[kind], random.Random(7)
    others = [head for head in all_heads(*DEMO_GRID) if head not in planted]
    model = train(tmp_path, kind=kind, seed=5, planted=planted)
    borders = ORGANISMS[kind].borders()
    for chosen in {(), *rng.sample(borders, min(6, len(borders)))}:
        topics, own = TRUTH[kind][chosen], tuple(planted[place] for place in chosen)
        heads = (*own, *rng.sample(others, 8 - len(own)))
        for name in ("three" if kind == "three" else "harmful", "benign"):
            for category, answered in model.asr(name, heads).items():
                free = category == Category.BENIGN or category in topics
                assert answered >= 0.95 if free else answered <= 0.05
