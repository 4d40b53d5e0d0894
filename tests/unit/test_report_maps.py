"""What the page says of maps of single heads, and of how many heads it takes."""

from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from safetyheads.report import ReportData, figures
from safetyheads.report.concentration import concentration_table, concentration_words
from safetyheads.report.maps import map_words

MAP: dict[str, Any] = {
    **{"n": 60, "n_heads": 32, "needed": 11, "plain": 0.2, "highest": 0.5, "lowest": -0.15, "p_value": 0.0005},
    **{"expected_highest": 0.08, "expected_lowest": -0.07, "cochran_p": 0.001, "up": 1, "down": 0},
    **{"highest_asr": 0.5, "p_value_asr": 0.0005, "up_asr": 1, "down_asr": 0},
}


def heads(*rows: tuple[int, int, float, float]) -> pd.DataFrame:
    """Rows of `maps_by_head`: layer, head, effect, p_adjusted."""
    table = pd.DataFrame(rows, columns=["layer", "head", "effect", "p_adjusted"])
    return table.assign(plain=0.2, ablated=table["effect"] + 0.2, up=3, down=1)


TWO = heads((1, 3, 0.5, 0.001), (2, 6, -0.15, 0.4), (0, 0, 0.0, 1.0))


def test_the_words_name_what_survives_what_chance_gives_and_what_so_many_prompts_can_show() -> None:
    words = map_words(MAP, TWO)
    assert "Of 32 heads, 1 differs from the plain model (Holm)" in words
    assert "L01H03 (+0.50) above" in words
    assert "highest L01H03 +0.50 (by chance about +0.08), lowest L02H06 -0.15 (by chance about -0.07)" in words
    assert (
        "further apart from each other than chance explains (permutation test: p 0.0005; Cochran's Q: p 0.001)" in words
    )
    assert "11 prompts must flip one way; this map has 60." in words
    assert "judge's word" not in words


def test_heads_that_hold_refusal_back_are_named_as_those_that_support_it() -> None:
    words = map_words({**MAP, "up": 1, "down": 1}, heads((1, 3, 0.5, 0.001), (2, 6, -0.4, 0.002)))
    assert "2 differ" in words and "L01H03 (+0.50) above; L02H06 (-0.40) below" in words


def test_a_map_that_shows_nothing_says_so_and_why_it_could_not() -> None:
    noise = heads((1, 3, 0.1, 0.9), (2, 6, -0.1, 1.0))
    words = map_words({**MAP, "n": 9, "up": 0, "up_asr": 0, "p_value": 0.3, "cochran_p": None}, noise)
    assert "No head of 32 differs from the plain model beyond chance (Holm)." in words
    assert "no further apart from each other than chance explains (permutation test: p 0.3)" in words
    assert "this map has only 9: it cannot show any head" in words


def test_a_map_of_one_head_speaks_of_one_head() -> None:
    words = map_words({**MAP, "n_heads": 1, "needed": 6, "up_asr": 2}, heads((1, 3, 0.5, 0.001)))
    assert words.startswith("The head differs from the plain model (Holm): L01H03 (+0.50) above. By the judge's word")
    assert "Before the head can survive, 6 prompts" in words and "chance" not in words
    assert "1 head differs (highest" in map_words({**MAP, "up": 0}, TWO)


def test_what_the_judge_alone_would_say_is_told_where_it_differs() -> None:
    assert "By the judge's word alone, broken text included, 3 heads differ" in map_words({**MAP, "up_asr": 3}, TWO)


def test_only_the_first_of_many_survivors_are_named() -> None:
    many = heads(*((0, number, 0.5 - number / 100, 0.01) for number in range(8)))
    words = map_words({**MAP, "up": 8, "up_asr": 8}, many)
    assert "L00H04" in words and "L00H05" not in words and "and 3 more above" in words


def test_the_colours_diverge_around_the_plain_rate_and_survivors_are_outlined() -> None:
    svg = figures.single_map(TWO, (3, 8), [])
    root = ElementTree.fromstring(svg)
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "L01H03: 0.70, plain 0.20, +0.50; prompts: 3 up, 1 down; Holm p 0.001"
    outlines = svg.count("stroke: #000000; stroke-width: 1.6")
    assert outlines == 1
    nobody = figures.single_map(TWO.assign(p_adjusted=1.0), (3, 8), [])
    assert nobody.count("stroke: #000000; stroke-width: 1.6") == 0
    low = figures.single_map(TWO.assign(plain=0.9, effect=[0.1, -0.5, 0.0]), (3, 8), [])
    ticks = [text.text for text in ElementTree.fromstring(low).iter("{http://www.w3.org/2000/svg}text")]
    assert "100" in ticks and "plain" in ticks and "140" not in ticks


CELL = {"model": "m", "dataset": "d", "template": "t", "ablation": "ua", "decoding": "greedy", "judge": "paper"}


def concentrated(method: str, **more: Any) -> dict[str, Any]:
    row = {**CELL, "method": method, "source": "d", "gini": 0.9, "top_share": 0.5, "effective_heads": 2.1}
    row |= {"n_heads": 32, "largest": 3, "heads_asr": 1, "heads_coherent": 2, "score_correlation": 0.4}
    return (
        row | {"refusal_shift_correlation": -0.3, "answer_shift_correlation": None, "highest_correlation": 0.5} | more
    )


def chosen(method: str, n: int, layer: int, share: float | None, margin: float | None = None) -> dict[str, Any]:
    keys = {key: CELL[key] for key in ("model", "dataset", "template", "ablation")}
    return {
        **keys,
        "method": method,
        "n": n,
        "layer": layer,
        "head": 1,
        "share": share,
        "chosen": True,
        "margin": margin,
    }


def page_data(stability: list[dict[str, Any]]) -> ReportData:
    return ReportData(title="", studies={}, models={}, rates=pd.DataFrame(), stability=pd.DataFrame(stability))


def test_the_table_tells_how_many_heads_it_takes_and_how_stable_they_are() -> None:
    data = page_data(
        [chosen("top", 3, layer, share) for layer, share in ((0, 1.0), (1, 0.8), (2, 0.25))]
        + [chosen("top", 1, 0, 0.4)]
        + [chosen("sahara", n, n, None, margin) | {"dataset": "other"} for n, margin in ((1, 4.0), (2, 0.5))]
    )
    rows = pd.DataFrame(
        [
            concentrated("top"),
            concentrated("sahara", source="other", heads_coherent=np.nan, score_correlation=np.nan),
        ]
    )
    table = concentration_table(data, rows)
    own, other = (dict(zip(table.columns, row)) for row in table.rows)
    assert own["how stable the chosen heads are"].replace("\u00a0", " ").split("\n") == [
        "1: L00H01 40 %",
        "3: L00H01 100 %, L01H01 80 %, L02H01 25 %",
    ]
    assert other["how stable the chosen heads are"].replace("\u00a0", " ") == "1: L01H01 +4.00°\n2: L02H01 +0.50°"
    assert (own["effective heads"], own["ρ best possible"]) == ("2.1 of 32", "+0.50")
    assert "ρ answer shift" not in own, "which no row has"
    assert (own["heads for ASR 50\u00a0%"], own["heads for coherent ASR 50\u00a0%"], own["ρ score"]) == (
        "1",
        "2",
        "+0.40",
    )
    assert other["method"] == "sahara@other"
    assert other["heads for coherent ASR 50\u00a0%"] == "more than 3" and other["ρ score"] == "–"
    words = concentration_words(data, rows)
    assert "reaches 50 % with 2 heads (top)" in words
    assert "Mind that the heads of top-1, top-3 hang on the prompts" in words


@pytest.mark.parametrize(
    ("reached", "words"),
    [
        (1, "reaches 50 % with 1 head (top)"),
        (0, "The plain model's coherent ASR is 50 % or more."),
        (np.nan, "does not reach 50 % with any of up to 3 heads"),
    ],
)
def test_how_many_heads_it_takes_in_words(reached: float, words: str) -> None:
    rows = pd.DataFrame([concentrated("top", heads_coherent=reached)])
    said = concentration_words(page_data([chosen("top", 3, 0, 1.0)]), rows)
    assert words in said and "Mind" not in said


def test_dose_curves_have_a_panel_for_each_method() -> None:
    curves = (("top", "d", 0.5, 0.1), ("ships", "d", np.nan, np.nan), ("top", "e", 1.0, 0.0))
    points = [
        {**CELL, "method": method, "source": source, "n_heads": n, "control": control, "refused": refused}
        | {"asr": n / 3, "coherent_asr": n / 4, "degenerate": n / 12}
        for method, source, refused, control in curves
        for n in (0, 1, 3)
    ]
    root = ElementTree.fromstring(figures.dose_curves(pd.DataFrame(points)))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"top", "ships", "top@e"} <= set(texts)
    assert texts.count("heads ablated") == texts.count("complied") == texts.count("broken") == 3
    assert texts.count("refused") == texts.count("control") == 2, "where they are known"


@pytest.mark.parametrize("shares", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.0), (0.3, 0.33, 0.36)])
def test_names_of_curves_do_not_lie_over_each_other(shares: tuple[float, ...]) -> None:
    complied, refused, degenerate = shares
    outcomes = {"asr": 0.5, "coherent_asr": complied, "refused": refused, "degenerate": degenerate}
    points = [{**CELL, "method": "top", "source": "d", "n_heads": n, "control": complied, **outcomes} for n in (0, 2)]
    root = ElementTree.fromstring(figures.dose_curves(pd.DataFrame(points)))
    found = {
        text.text: float(text.attrib["y"])
        for text in root.iter("{http://www.w3.org/2000/svg}text")
        if text.text in ("complied", "refused", "broken", "control")
    }
    heights = sorted(found.values())
    assert len(heights) == 4
    assert all(below - above > 11 for above, below in pairwise(heights)), "units; the font has 8.5"


def test_all_methods_that_reach_it_with_fewest_heads_are_named() -> None:
    rows = pd.DataFrame([concentrated("top"), concentrated("ships"), concentrated("contrast", heads_coherent=3)])
    assert "reaches 50 % with 2 heads (ships, for each prompt; top)." in concentration_words(page_data([]), rows)


def test_of_ships_the_heads_of_most_prompts_are_named() -> None:
    data = page_data([chosen("ships", 1, layer, share) for layer, share in ((0, 0.5), (1, 0.1), (2, 0.4))])
    rows = pd.DataFrame([concentrated("ships")])
    assert (
        concentration_table(data, rows).rows[0][-1].replace("\u00a0", " ") == "1: L00H01 50 %, L02H01 40 %, L01H01 10 %"
    )
    assert "Mind" not in concentration_words(data, rows), "they differ between prompts on purpose"
