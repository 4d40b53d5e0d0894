"""Methods beside each other on the page, and plans that ask for more heads than a method names: on scores by hand."""

from dataclasses import replace
from xml.etree import ElementTree

import pandas as pd
import pytest

from safetyheads.chosen_heads import filled_in, group
from safetyheads.heads import Head
from safetyheads.plans import parse_plan
from safetyheads.report import ReportData, figures
from safetyheads.report.effects import row_caveats
from safetyheads.report.sections import model_sections
from safetyheads.report.side_by_side import agreed, agreement_words, methods_table, named_first

KEYS = {"model": "m", "dataset": "d", "template": "t", "ablation": "a"}
HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]
PLAIN = pd.DataFrame({"plan": ["none"], "degenerate": [0.0]})


def table(scores: list[float], **more: object) -> pd.DataFrame:
    rows = pd.DataFrame(HEADS, columns=["layer", "head"]).assign(
        **KEYS, score=scores, step=None, support=None, selected=None
    )
    return rows.assign(**more)


def data(**scores: pd.DataFrame) -> ReportData:
    ships = pd.concat([table([3.0, 1.0, 2.0, 0.5], query_id=query) for query in ("q-0", "q-1")])
    steps = pd.concat(
        [
            table([1.0, 2.0, 5.0, 0.0], step=1, selected=[False, False, True, False]),
            table([9.0, 2.0, 5.0, 0.0], step=2, selected=[True, False, False, False]),
        ]
    )
    given = {"ships": ships, "sahara": steps, "scores": {"mask": table([0.0, 1.0, 1.0, 0.0]), **scores}}
    return ReportData("page", {}, {}, pd.DataFrame(), **given)


def test_a_method_names_heads_with_a_score_above_0_and_a_search_those_of_its_steps() -> None:
    assert named_first(data(), KEYS) == {
        "sahara": (Head(1, 0), Head(0, 0)),
        "top": (Head(0, 0), Head(1, 0), Head(0, 1), Head(1, 1)),
        "mask": (Head(0, 1), Head(1, 0)),
    }
    signed = named_first(data(gradient=table([-1.0, 0.5, -2.0, 0.0])), KEYS)
    assert signed["gradient"] == (Head(0, 1),)
    assert named_first(data(), {**KEYS, "dataset": "other"}) == {}


def test_a_contrast_is_named_where_there_is_something_to_subtract() -> None:
    made = data()
    benign = made.ships.assign(dataset="mild", score=[2.9, 0, 2.5, 0] * 2)
    both = ReportData(
        *("page", {}, {}, pd.DataFrame()),
        ships=pd.concat([made.ships, benign]),
        contrasts={("m", "d"): ("m", "mild")},
    )
    assert named_first(both, KEYS)["contrast"] == (Head(0, 1), Head(1, 1), Head(0, 0))


def test_heads_stand_by_how_many_methods_name_them_and_how_early() -> None:
    named = named_first(data(), KEYS)
    assert agreed(named) == [Head(1, 0), Head(0, 0), Head(0, 1), Head(1, 1)]
    assert agreement_words(named) == (
        "Among the first 5 of more than half of the 3 methods: L01H00 (3), L00H00 (2), L00H01 (2)."
    )
    apart = {"top": (Head(0, 0),), "mask": (Head(0, 1),)}
    assert agreement_words(apart).endswith("they disagree.")


def test_the_table_counts_the_planted_heads_among_as_many() -> None:
    rows = methods_table({**named_first(data(), KEYS), "gradient": ()}, ["L00H01", "L01H00"]).rows
    assert [(row[0], row[-1]) for row in rows] == [
        *(("sahara", "1 of 2"), ("top", "1 of 2"), ("mask", "2 of 2"), ("gradient", "0 of 2"))
    ]
    assert rows[-1][1] == "none" and len(methods_table({"top": ()}, []).columns) == 3


def test_the_figure_has_a_number_for_each_head_that_is_named() -> None:
    named = named_first(data(), KEYS)
    svg = figures.named_heads(named, agreed(named), ["L00H01"], label="Heads")
    texts = [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(text for text in texts if text.isdigit()) == sorted("12123412")
    assert "\u25c6 L00H01" in texts and {"sahara", "top", "mask", "L01H00"} <= set(texts)


def test_one_method_alone_and_methods_that_name_no_head_have_no_card() -> None:
    def cards(given: ReportData) -> list[str]:
        (section,) = model_sections(given)[0].datasets
        return [card.kind for card in section.scores]

    made = replace(data(), models={"m": {"layers": 2, "heads": 2}})
    assert cards(made) == ["methods", "scores"]
    alone = replace(made, ships=pd.DataFrame(), sahara=pd.DataFrame())
    assert cards(alone) == ["scores"]
    nothing = {"mask": table([0.0] * 4), "knockouts": table([-1.0] * 4)}
    assert cards(replace(alone, scores=nothing)) == ["scores", "scores"]


@pytest.mark.parametrize(
    ("plan", "filled"),
    [
        ("mask-2", ()),
        ("mask-3", (Head(0, 0),)),
        ("mask-4", (Head(0, 0), Head(1, 1))),
        ("top-4", ()),
        ("sahara-2", ()),
        ("ships-4", ()),
    ],
)
def test_heads_that_a_method_does_not_name_are_filled_in(plan: str, filled: tuple[Head, ...]) -> None:
    parsed, made = parse_plan(plan), data()
    scores = made.scores_of(parsed)
    assert filled_in(parsed, scores) == filled
    if plan.startswith("mask"):
        assert set(filled) < set(group(parsed, scores))


def test_the_page_says_of_an_effect_which_heads_are_filled_in() -> None:
    row = {**KEYS, "judge": "paper", "n": 4, "effect": 0.5, "plain": 0.0, "ablated": 0.5, "degenerate": 0.0}
    found = row_caveats(data(), {**row, "plan": "mask-3"}, PLAIN)
    assert found[0].kind == "filled in" and found[0].short == "L00H00 filled in"
    assert found[0].text.startswith("mask names 2 heads only: L00H00 has no score above 0")
    for plan in ("mask-2", "top-4", "mask-3@elsewhere", "knockouts-2"):
        assert row_caveats(data(), {**row, "plan": plan}, PLAIN)[0].kind != "filled in"
