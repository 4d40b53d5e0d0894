"""The report: what the page shows, that nothing on it can do harm, and that the same data give the same page."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_string
from hypothesis import given
from hypothesis import strategies as st

from safetyheads import report
from safetyheads.heads import all_heads, parse_head
from safetyheads.report import Experiment, ReportData, build, figures
from safetyheads.report.figures import drawing
from safetyheads.report.headlines import headlines
from safetyheads.report.planted import planted_checks
from safetyheads.report.sections import model_sections
from safetyheads.report.tables import LARGEST, conditions, leading_heads, rates_table
from safetyheads.statistics.maps import maps as maps_of
from safetyheads.statistics.paper_vs_ours import COLUMNS as PAPER_VS_OURS
from safetyheads.statistics.rates import rates as rates_of

GRID = (4, 8)
A, B = "L01H03", "L02H06"
HOSTILE = "<script>alert(1)</script>"
QUOTED = '"onload="alert(1)" x="</svg>'
MATHS = "a$b^{$_"
SECRET = "the text of a query"


def frees(heads: Sequence[str], category: str) -> bool:
    """Whether the demo model answers a request of this category with `heads` ablated."""
    return category == "benign" or (category == "guarded_a" and A in heads) or (category == "guarded_b" and B in heads)


COMPUTED = {
    **{"dtype": "bfloat16", "attention": "sdpa", "kernels": ["efficient", "math"], "device": "NVIDIA H100"},
    **{"out_of_memory": 17, "versions": {"torch": "2.13.0", "transformers": "5.24.0"}},
}


def demo(
    *,
    model: str = "demo",
    harmful: str = "demo_harmful",
    template: str = "simple",
    ablation: str = "undifferentiated",
    own_set: str = "planted",
    judge: str = "paper",
    planted: Sequence[str] | None = (A, B),
    draws: Mapping[str, Sequence[str]] | None = None,
) -> ReportData:
    """A run of the demo on 40 harmful, 10 benign and 50 attribution requests, answered exactly as trained."""
    sahara_plan = "sahara-2@demo_attribution"
    counts = {
        harmful: {"guarded_a": 20, "guarded_b": 20},
        "demo_benign": {"benign": 10},
        "demo_attribution": {"guarded_a": 3, "guarded_b": 3, "always_refused": 44},
    }
    datasets = pd.DataFrame(
        [
            {"dataset": name, "query_id": f"{name}-{number:04d}", "query": SECRET, "category": category, "target": None}
            for name, categories in counts.items()
            for number, category in enumerate(c for c, count in categories.items() for _ in range(count))
        ]
    )
    draws = draws or {"draw-0": ["L00H00", "L03H03"], "draw-1": ["L00H05", "L02H02"]}
    variants = {("plain", "none", "none"): [], (ablation, sahara_plan, sahara_plan): [A, B]}
    variants |= {(ablation, own_set, own_set): [A, B]}
    variants |= {(ablation, "single", str(head)): [str(head)] for head in all_heads(*GRID)}
    variants |= {(ablation, "random-2", draw): list(heads) for draw, heads in draws.items()}
    guard = {"guarded_a": [A], "guarded_b": [B]}
    measured = datasets[datasets["dataset"] != "demo_attribution"].to_dict("records")
    verdicts = [
        {
            "dataset": query["dataset"],
            "query_id": query["query_id"],
            "ablation": under,
            "plan": plan,
            "variant": variant,
        }
        | {"harmful": answered, "outcome": "complied" if answered else "refused", "paired": None}
        for (under, plan, variant), heads in (variants | {(ablation, "ships-1", "ships-1"): None}).items()
        for query in measured
        for answered in [frees(guard.get(query["category"], []) if heads is None else heads, query["category"])]
    ]
    keys = {"model": model, "template": template, "decoding": "greedy", "judge": judge, "sample": 0}
    ships = [
        {"dataset": query["dataset"], "query_id": query["query_id"], "layer": head.layer, "head": head.head}
        | {"score": 5.0 if str(head) in guard.get(query["category"], []) else 0.001 * (1 + head.head)}
        for query in measured
        for head in all_heads(*GRID)
    ]
    sahara = [
        {"step": step, "layer": head.layer, "head": head.head, "score": score, "selected": str(head) == chosen}
        for step, chosen in ((1, A), (2, B))
        for head in all_heads(*GRID)
        if step == 1 or str(head) != A
        for score in [{A: 11.0, B: 10.0}.get(str(head), 0.1) + 5.0 * (step - 1)]
    ]
    cell = {"model": model, "template": template, "ablation": ablation}
    names: dict[str, list[str]] = {
        "models": [model],
        "datasets": [harmful, "demo_benign"],
        "templates": [template],
        "ablations": [ablation],
        "plans": ["none", "ships-1", sahara_plan, "single", "random-2", own_set],
        "decodings": ["greedy"],
        "judges": [judge],
    }
    judged = pd.DataFrame(verdicts).assign(**keys)
    of_maps = maps_of(judged)
    about: dict[str, Any] = {"class": "LlamaForCausalLM", "layers": GRID[0], "heads": GRID[1], "source": "demo"}
    return ReportData(
        title="A demo",
        studies={"main": names},
        models={model: about | ({"planted": list(planted)} if planted else {})},
        rates=rates_of(judged),
        maps=of_maps.maps,
        maps_by_head=of_maps.by_head,
        ships=pd.DataFrame(ships).assign(**cell),
        sahara=pd.DataFrame(sahara).assign(dataset="demo_attribution", **cell),
        datasets=datasets,
        attribution={"steps": 2, "rank": 1, "representation": "final_norm"},
        templates={template: {"text": "## Query:{query}\n## Answer:"}},
        ablations={ablation: {"kind": "undifferentiated", "epsilon": 1e-5}},
        decodings={"greedy": {"max_new_tokens": 128, "top_k": 1}},
        judges={judge: {"kind": "keywords", "list": ["No"]}},
        head_sets={own_set: [A, B]},
        record={
            "versions": {"torch": "2.13.0"},
            "commit": "0123abc",
            "clean": True,
            "made_from": [{"record": COMPUTED, "files": [f"completions/{model}/d/t/plain/none/greedy.parquet"]}],
        },
    )


def hostile() -> ReportData:
    data = demo(model=HOSTILE, harmful=QUOTED, template=MATHS, ablation="_" + HOSTILE, own_set=MATHS, judge=QUOTED)
    category = data.datasets.assign(category=[HOSTILE, *data.datasets["category"][1:]])
    return replace(data, title=HOSTILE, record={"versions": {QUOTED: HOSTILE}, "made_from": []}, datasets=category)


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


def svgs(html: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)


@pytest.fixture(scope="module")
def page() -> str:
    return build(demo())


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return build(hostile())


def test_hostile_names_stay_text(page: str, hostile_page: str) -> None:
    parsed = Page(hostile_page)
    assert "script" not in parsed.elements
    assert not [name for name, _ in parsed.attributes if name.startswith("on")]
    assert set(parsed.elements) == set(Page(page).elements)
    for name in (HOSTILE, QUOTED, MATHS):
        assert name in parsed.text
    drawn = "".join("".join(ElementTree.fromstring(svg).itertext()) for svg in svgs(hostile_page))
    assert MATHS in drawn


def test_page_asks_for_nothing_from_elsewhere(hostile_page: str) -> None:
    parsed = Page(hostile_page)
    assert not parsed.values("src", "srcset", "action", "data", "poster")
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in parsed.values("href", "xlink:href"))
    assert {value for name, value in parsed.attributes if "://" in value} == {"http://www.w3.org/2000/svg"}
    css = re.findall(r"<style>(.*?)</style>", hostile_page, flags=re.DOTALL)
    assert len(css) == 1 and "url(" not in css[0] and "@import" not in css[0]
    assert "default-src 'none'" in hostile_page


@pytest.mark.parametrize("make", [demo, hostile])
def test_ids_are_unique_and_links_lead_somewhere(make: Any) -> None:
    html = build(make())
    parsed = Page(html)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids)) > 10
    links = [link[1:] for link in parsed.values("href") if link.startswith("#")]
    links += re.findall(r"url\(#([^)]*)\)", html)
    assert links and set(links) <= set(ids)


def test_figures_are_well_formed_and_described(hostile_page: str) -> None:
    found = svgs(hostile_page)
    assert len(found) == 11
    for svg in found:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and len(root.get("aria-label", "")) > 20
        assert not root.findall(".//{*}metadata") and not root.findall(".//{*}style")


def test_same_data_give_the_same_page_whatever_matplotlib_is_set_to(page: str) -> None:
    with matplotlib.rc_context({"axes.linewidth": 5.0, "svg.fonttype": "path", "font.size": 30.0}):
        before = dict(matplotlib.rcParams)
        assert build(demo()) == page
        assert dict(matplotlib.rcParams) == before


def test_page_shows_no_queries(page: str) -> None:
    assert SECRET not in page


def test_page_says_that_the_planted_heads_were_found(page: str) -> None:
    assert "found, all 7 checks hold" in page


def test_table_headings_have_a_scope(page: str) -> None:
    parsed = Page(page)
    assert parsed.elements.count("th") == len(parsed.values("scope"))
    assert parsed.elements.count("table") == parsed.elements.count("caption")


HEADINGS = {
    "ships": "Ships: which head",
    "sahara": "Sahara: which heads",
    "by_plan": "ASR by plan",
    "by_n": "ASR by number of ablated heads",
    "single": "Each head alone",
}


@pytest.mark.parametrize(
    ("change", "shown", "planted"),
    [
        (lambda data: {}, {"ships", "sahara", "by_plan", "by_n", "single"}, True),
        (lambda data: {"ships": pd.DataFrame()}, {"sahara", "by_plan", "by_n", "single"}, True),
        (lambda data: {"sahara": data.sahara.head(0)}, {"ships", "by_plan", "by_n", "single"}, True),
        (lambda data: {"rates": data.rates[data.rates["plan"] == "none"]}, {"ships", "sahara", "by_plan"}, True),
        (
            lambda data: {"rates": data.rates[data.rates["plan"].isin(["none", "ships-1"])]},
            {"ships", "sahara", "by_plan"},
            True,
        ),
        (lambda data: {"rates": data.rates.head(0)}, {"ships", "sahara"}, True),
        (lambda data: {"models": {"demo": {}}}, {"ships", "sahara", "by_plan", "by_n", "single"}, False),
        (lambda data: {"datasets": pd.DataFrame()}, {"ships", "sahara", "by_plan", "by_n", "single"}, False),
    ],
)
def test_sections_appear_where_there_are_data(change: Any, shown: set[str], planted: bool) -> None:
    data = demo()
    data = replace(data, **change(data))
    parsed = Page(build(data))
    assert {kind for kind, heading in HEADINGS.items() if heading in parsed.text} == shown
    ids = parsed.values("id")
    assert ("planted" in ids) == planted
    assert ("headline" in ids) == bool(len(data.rates))


def test_planted_heads_are_found_where_they_are() -> None:
    checks = planted_checks(demo(), "demo")
    assert len(checks) == 7 and all(check.holds for check in checks)
    found = {check.claim.split(":")[0]: check.found for check in checks}
    assert found["Ships"] == "40 of 40 prompts (100\u00a0%)"
    assert found["Sahara"] == f"{A}: rank 1; {B}: rank 2 of 32"
    assert (
        found["Each planted head, ablated alone, frees the requests that it guards"]
        == f"{A}: 50\u00a0%; {B}: 50\u00a0%"
    )


def test_planted_heads_are_not_found_where_they_are_not() -> None:
    data = demo(planted=("L00H00", "L03H07"))
    failed = {check.claim.split(":")[0].split(",")[0] for check in planted_checks(data, "demo") if not check.holds}
    assert failed == {"Ships", "Sahara", "Each planted head", "No other head"}
    assert "not found in full" in build(data)


def test_swapped_planted_heads_guard_the_wrong_requests() -> None:
    failed = [check for check in planted_checks(demo(planted=(B, A)), "demo") if not check.holds]
    assert [check.found for check in failed] == ["0 of 40 prompts (0\u00a0%)"]


def test_planted_checks_are_for_demo_models_and_undifferentiated_ablation() -> None:
    assert planted_checks(demo(planted=None), "demo") == []
    scaled = replace(demo(), ablations={"undifferentiated": {"kind": "scaling"}})
    assert {check.claim for check in planted_checks(scaled, "demo")} == {
        "The plain model refuses",
        "Benign requests are answered, whatever is ablated",
    }


def test_headline_names_the_fewest_heads_of_the_highest_rate() -> None:
    harmful, benign = headlines(demo())
    assert (harmful.plan, harmful.count, harmful.total) == ("ships-1", 1, 32)
    assert (harmful.plain, harmful.asr, harmful.n) == (0.0, 1.0, 40)
    assert A in harmful.heads and B in harmful.heads and "of the same layers do was not measured" in harmful.answer
    assert "few refusals to lose" in benign.answer


@pytest.mark.parametrize(
    ("plans", "answer", "heads"),
    [
        (["none"], "No heads were ablated", ""),
        (["none", "random-2"], "Only random heads were ablated", ""),
        (["none", "planted"], "how other heads of the same layers do was not measured", f"{A}, {B}"),
        (["none", "random-2", "single"], "few heads", A),
        (["none", "random-2", "sahara-2@demo_attribution"], "of the same layers do was not measured", f"{A}, {B}"),
    ],
)
def test_headline_says_no_more_than_was_measured(plans: list[str], answer: str, heads: str) -> None:
    data = demo()
    line = headlines(replace(data, rates=data.rates[data.rates["plan"].isin(plans)]))[0]
    assert answer in line.answer and line.heads == heads


def test_headline_does_not_blame_particular_heads_where_random_ones_do_as_much() -> None:
    answer = headlines(demo(draws={"draw-0": [A, B]}))[0].answer
    assert "random heads do nearly as much" in answer


def test_headline_does_not_call_chance_a_finding() -> None:
    data = demo()
    assert (
        "beyond what chance"
        in headlines(replace(data, rates=data.rates.assign(p_value=0.03, p_adjusted=1.0)))[0].answer
    )


def test_leading_heads_are_ranked_and_their_shares_add_up() -> None:
    data = demo()
    rows = leading_heads(data.ships[data.ships["dataset"] == "demo_harmful"]).rows
    assert [row[0] for row in rows[:2]] == [B, A] and len(rows) == 10
    assert [row[3] for row in rows[:3]] == ["50\u00a0%", "50\u00a0%", "0\u00a0%"]
    shares = [float(row[2].split("\u00a0")[0]) for row in rows]
    assert shares == sorted(shares) and shares[-1] <= 100


def test_long_single_plans_are_cut_to_the_largest_and_say_so() -> None:
    data = demo()
    rates = data.rates[data.rates["dataset"] == "demo_harmful"]
    table = rates_table(rates)
    single = [row for row in table.rows if row[0] == "single"]
    assert len(single) == LARGEST and [row[1] for row in single[:3]] == [A, B, "L00H00"]
    assert len(table.rows) == len(rates) - 32 + LARGEST and "(12 rows are not)" in table.note


def test_models_of_different_sizes_and_categorical_names_share_a_page() -> None:
    small = demo()
    one = {"model": "one_layer", "layer": 0}
    both = replace(
        small,
        models=dict(small.models) | {"one_layer": {"layers": 1, "heads": 8}},
        ships=pd.concat([small.ships, small.ships[small.ships["layer"] == 0].assign(**one)]).astype(
            dict.fromkeys(("model", "dataset", "template", "ablation", "query_id"), "category")
        ),
    )
    assert [model.name for model in model_sections(both)] == ["demo", "one_layer"]
    assert len(svgs(build(both))) == 11 + 2


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_single_prompt_without_p_values_makes_a_page(value: float) -> None:
    data = demo(planted=None)
    flat = data.rates.assign(
        n=1, harmful=value, asr=value, low=0.0, high=1.0, delta=0.0, p_value=np.nan, p_adjusted=np.nan
    )
    one = data.ships[data.ships["query_id"] == "demo_harmful-0000"].assign(score=0.0)
    parsed = Page(build(replace(data, rates=flat, ships=one, sahara=data.sahara.assign(score=0.0))))
    assert "nan" not in parsed.text.lower().split()


def test_empty_data_make_a_page() -> None:
    html = build(ReportData(title="Nothing", studies={}, models={}, rates=pd.DataFrame()))
    assert "Nothing" in html and not svgs(html)


@given(
    grid=st.tuples(st.integers(1, 40), st.integers(1, 70)),
    scores=st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
    planted=st.booleans(),
)
def test_maps_of_any_size_and_scale_are_well_formed(grid: tuple[int, int], scores: list[float], planted: bool) -> None:
    heads = all_heads(*grid)
    values = np.resize(scores, len(heads))
    ships = pd.DataFrame({"layer": [h.layer for h in heads], "head": [h.head for h in heads], "score": values})
    by_head = ships[["layer", "head"]].assign(ablated=values / 1e6, plain=0.9, effect=values / 1e6 - 0.9)
    by_head = by_head.assign(up=1, down=values > 1, p_adjusted=0.01)
    shifts = ships.assign(refusal_shift=values - 1.0)
    chosen = [str(heads[-1])] if planted else []
    drawn = {
        "nats": figures.ships_map(ships, grid, chosen),
        "refusal shift": figures.shift_map(shifts, grid, chosen),
        "Holm": figures.single_map(by_head, grid, chosen),
    }
    for words, svg in drawn.items():
        root = ElementTree.fromstring(svg)
        assert float(root.get("height", "0")) < 600
        assert len(root.findall(".//{*}image")) == 2
        titles = [title.text or "" for title in root.findall(".//{*}title")]
        assert [title.split(":")[0] for title in titles] == [str(head) for head in heads]
        assert all(words in title for title in titles)


@given(names=st.lists(st.text(min_size=1, max_size=26), min_size=2, max_size=4, unique=True))
def test_any_text_as_a_name_is_drawn_as_it_is(names: list[str]) -> None:
    plain = {"ablation": "plain", "plan": "none", "variant": "none", "asr": 0.1, "low": 0.0, "high": 0.3}
    rows = [plain, *(plain | {"ablation": name, "plan": "ships-1", "variant": "ships-1"} for name in names)]
    root = ElementTree.fromstring(figures.asr_by_plan(pd.DataFrame(rows), label=names[0]))
    drawn = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(any(drawing.short(name, 26) == text for text in drawn) for name in names if name.strip())


@given(text=st.text(), length=st.integers(3, 40))
def test_short_text_is_short_printable_and_keeps_what_fits(text: str, length: int) -> None:
    cut = drawing.short(text, length)
    assert len(cut) <= length and cut.isprintable()
    assert cut == text or len(text) > length or not text.isprintable()


def test_selected_and_planted_heads_of_every_step_are_named() -> None:
    svg = figures.search_steps(demo().sahara, [A, B])
    drawn = [text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {f"{A} ✓", f"{B} ✓", B} <= set(drawn)


def test_lines_by_number_of_heads_count_the_heads_of_every_kind_of_plan() -> None:
    data = demo()
    rates = data.rates[data.rates["dataset"] == "demo_harmful"]
    found = {line.name: line for line in figures.lines(rates, {"planted": 2})}
    counts = {name: line.points["n_heads"].tolist() for name, line in found.items()}
    assert counts == {
        "ships": [1],
        "sahara@demo_attribution": [2],
        "best single head": [1],
        "random: mean and draws": [2],
        "set planted": [2],
    }
    assert len(found["random: mean and draws"].draws) == 2


def test_best_single_head_is_the_first_of_equals() -> None:
    rows = pd.DataFrame({"variant": ["L02H00", "L01H07", "L00H01"], "asr": [0.5, 0.5, 0.1]})
    assert parse_head(figures.best_single(rows)["variant"].item()) == (1, 7)


def test_dark_theme_replaces_the_colours_of_the_figures() -> None:
    css = (Path(report.__file__).parent / "page.css").read_text()
    for colour in (drawing.INK, drawing.MUTED, drawing.RULE, drawing.PAPER, drawing.COLOURS[0]):
        assert f'[style*="fill: {colour}"]' in css and f'[style*="stroke: {colour}"]' in css


def test_report_does_not_import_torch() -> None:
    code = "import sys, safetyheads.report; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", ["page.rst", "rates.rst"])
def test_captions_are_valid_restructured_text(name: str) -> None:
    caption = Path(report.__file__).parents[2] / "report" / name
    publish_string(caption.read_text(), settings_overrides={"halt_level": 2, "report_level": 5})


def test_the_page_says_what_computed_the_numbers_and_at_which_commit() -> None:
    text = build(demo())
    for word in ("bfloat16", "efficient, math", "NVIDIA H100", ">17<", "5.24.0", "commit 0123abc.", "whole record"):
        assert word in text, word
    assert "with changes that were not committed" not in text
    dirty = replace(demo(), record={**demo().record, "clean": False})
    assert "0123abc, with changes that were not committed" in build(dirty)


def test_mixed_conditions_are_told_at_the_top() -> None:
    assert "Mixed conditions" not in build(demo())
    words = [f"completions/{n}.parquet: dtype bfloat16 (plain: float32)" for n in range(7)]
    text = build(replace(demo(), mixed=words))
    assert text.index("Mixed conditions") < text.index("In short</h2>")
    assert "7 comparisons are" in text
    assert words[4] in text
    assert words[5] not in text
    assert "and 2 more" in text


@pytest.mark.parametrize(
    ("pilot", "said"),
    [
        ({"limit": 40}, "demo_harmful is a pilot: the first 40 of 1,520 queries."),
        ({"sample": {"n": 40, "seed": 3}}, "demo_harmful is a pilot: drawn with seed 3, 40 of 1,520 queries."),
        ({"half": "odd"}, "demo_harmful is a pilot: the odd rows, 40 of 1,520 queries."),
    ],
)
def test_a_pilot_is_told_where_the_data_set_is_described(pilot: dict[str, Any], said: str) -> None:
    data = demo(harmful="demo_harmful")
    made: dict[str, Any] = {"config": {"dataset": pilot}, "queries": 1520, "versions": {}}
    files = ["datasets/demo_harmful.parquet"]
    record = {**data.record, "made_from": [*data.record["made_from"], {"record": made, "files": files}]}
    html = build(replace(data, record=record))
    assert said in html
    assert ">40 of 1,520<" in html
    assert "is a pilot" not in build(data)
    made["queries"] = 40
    assert "is a pilot" not in build(replace(data, record=record)), "all of its queries were taken"


def test_files_that_were_computed_alike_share_a_row() -> None:
    data = demo()
    files = ["ships/demo/d/t/a.parquet", "sahara/demo/d/t/a.parquet", "judged/judge/demo/d/t.parquet"]
    record = {**data.record, "made_from": [{"record": COMPUTED, "files": files}]}
    rows = conditions(replace(data, record=record)).rows
    assert [(row[0], row[-1]) for row in rows] == [("demo", "2"), ("judge (judge)", "1")]
    assert rows[0][1:-1] == rows[1][1:-1] and COMPUTED["dtype"] in rows[0]


def test_a_benign_data_set_is_told_to_be_one_and_no_other() -> None:
    data = demo(harmful="demo_harmful")
    assert "benign requests; " not in build(data)
    html = build(replace(data, benign=["demo_benign"]))
    assert html.count("These requests are benign") == html.count("benign requests; ") == 1
    assert "demo_benign is benign: its queries should be answered" in html


SHIFTS = {"refusal_shift": -2.5, "answer_shift": 1.25}
FIRST = {"refusals": [1], "answers": [2], "p_harmful": 0.94, "p_benign": 0.02, "auroc": 0.99, "word": None}


def with_shifts(data: ReportData, first: dict[str, Any], **shifts: float) -> ReportData:
    """The same data, with these shifts of every head, and a record of first tokens for every file of scores."""
    scores = data.ships.assign(**shifts)
    keys = scores[["model", "dataset", "template", "ablation"]].drop_duplicates().itertuples(index=False)
    group = {"record": {"refusal": first}, "files": [f"ships/{'/'.join(map(str, key))}.parquet" for key in keys]}
    return replace(data, ships=scores, record={**data.record, "made_from": [group]})


def test_the_shifts_stand_beside_the_divergence() -> None:
    page = Page(build(with_shifts(demo(), FIRST, **SHIFTS))).text
    assert "refusal shift (nats)" in page and "answer shift (nats)" in page
    assert "-2.50" in page and "+1.25" in page
    assert "first token with probability 0.94, on benign ones 0.02 (AUROC 0.99)" in page


def test_shifts_that_are_not_given_have_no_column_but_a_word() -> None:
    nothing = dict.fromkeys(SHIFTS, float("nan"))
    page = Page(build(with_shifts(demo(), {**FIRST, "word": "It hardly refuses."}, **nothing))).text
    assert "shift (nats)" not in page
    assert "It hardly refuses." in page
    alone = Page(build(with_shifts(demo(), {**FIRST, "p_benign": None, "auroc": None}, refusal_shift=-2.5))).text
    assert "refusal shift (nats)" in alone and "answer shift (nats)" not in alone and "AUROC" not in alone


def test_experiments_stand_on_the_page_with_their_numbers_and_the_papers() -> None:
    table = pd.DataFrame({"plan": ["ships-1", HOSTILE], "model": "m", "asr": [0.25, 0.5], "draws": [np.nan, np.nan]})
    svg = '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="a figure"><g/></svg>'
    measured = {
        "place": "table-3",
        "quantity": "asr_change",
        "our_model": HOSTILE,
        "our_dataset": "d",
        "plan": "ships-1",
    }
    measured |= {"our_ablation": "scaling", "our_template": "t", "decoding": "greedy", "judge": "paper"}
    measured |= {
        "paper": 0.4,
        "ours": 0.5,
        "low": 0.41,
        "high": 0.6,
        "agreement": "outside",
        "why": "",
        "coherent": 0.2,
    }
    other = {"place": "table-2", "quantity": "gpu_hours", "plan": "sahara", "agreement": "not run"}
    beside = pd.DataFrame([measured, other], columns=PAPER_VS_OURS)
    data = replace(demo(), experiments={"figure-2": Experiment("asr", svg, table)}, paper_vs_ours=beside)
    section = build(data).split('<section id="experiments">')[1].split("</section>")[0]
    assert 'aria-label="a figure"' in section and HOSTILE not in section
    words = " ".join(re.sub("<[^>]*>", " ", section).split())
    assert "In all rows: model m." in words and "draws" not in words and "ships-1 0.25" in words
    assert "Of the paper's 2 numbers, cells of this run measure some: 1 outside" in unescape(words)
    assert "0.4 0.5 0.41 to 0.6 0.2 outside" in words
    nothing = replace(data, paper_vs_ours=beside[1:])
    assert "None of the paper's 1 numbers" in unescape(build(nothing))
    assert 'id="experiments"' not in build(demo())
