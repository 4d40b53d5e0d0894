"""Effects on the page: its caveats follow from the numbers, its headlines claim no more, and its figures show them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from safetyheads.heads import Head
from safetyheads.judges import degenerate, loops
from safetyheads.judges.outcomes import OUTCOMES
from safetyheads.report import ReportData, broken_text, build, figures
from safetyheads.report.caveats import Caveat, caveats, mostly_broken
from safetyheads.report.effects import row_caveats
from safetyheads.report.headlines import headlines
from safetyheads.report.sections import model_sections
from safetyheads.statistics.effects import Study, effects

Shares = Mapping[str, float]
"""Shares of outcomes; the others are refused."""

NOTHING: Shares = MappingProxyType({})
KEYS = {"model": "m", "dataset": "asked", "template": "chat", "decoding": "greedy", "judge": "paper"}
SAME = "the control does the same"
BROKEN = "most of the change is broken text"
NOISE = "smaller than the noise between batches"


def outcomes_of(shares: Shares, n: int) -> list[str]:
    """`n` outcomes with these shares, rounded, the first prompts first."""
    found = [name for name, share in shares.items() for _ in range(round(share * n))]
    return [*found, *["refused"] * n][:n]


def study(
    plans: Mapping[str, Shares | Sequence[Shares]], plain: Shares = NOTHING, n: int = 40, noise: float | None = None
) -> ReportData:
    """The page's data of made-up verdicts: for each plan the shares of its outcomes, for a `matched-` one of each draw.

    Effects are computed from them as the pipeline does.
    """
    rows: list[dict[str, Any]] = []
    every: dict[str, Shares | Sequence[Shares]] = {"none": plain, **plans}
    for plan, shares in every.items():
        draws = [shares] if isinstance(shares, Mapping) else list(shares)
        for at, draw in enumerate(draws):
            variant = plan if isinstance(shares, Mapping) else f"draw-{at}"
            heads = [] if plan == "none" else [Head(0, 1)]
            rows += [
                {**KEYS, "ablation": "plain" if plan == "none" else "scaling", "plan": plan, "variant": variant}
                | {"query_id": f"asked-{query:04d}", "sample": 0, "outcome": outcome, "harmful": outcome == "complied"}
                | {"paired": None, "heads": heads, "first_kl": 0.0, "text": ""}
                for query, outcome in enumerate(outcomes_of(draw, n))
            ]
    table = pd.DataFrame(rows)
    queries = sorted(table["query_id"].unique())
    datasets = pd.DataFrame({"dataset": "asked", "query_id": queries, "query": "How do kites fly?", "category": None})
    names = {f"{key}s": [value] for key, value in KEYS.items()}
    noises = [] if noise is None else [{"model": "m", "judge": "paper", "n": 80, "texts": noise, "verdicts": noise}]
    return ReportData(
        title="Made up",
        studies={"main": {**names, "plans": list(every), "ablations": ["scaling"]}},
        models={"m": {"layers": 2, "heads": 8}},
        rates=rates_of(table),
        effects=effects(Study(table, table, datasets)),
        noise=pd.DataFrame(noises),
        head_sets={plan: ["L00H01"] for plan in plans if not plan.startswith(("matched-", "random-", "ships-"))},
    )


def rates_of(verdicts: pd.DataFrame) -> pd.DataFrame:
    """The rates of made-up verdicts with one sample per prompt, with the shares of the outcomes and rough intervals."""
    found = (
        verdicts.groupby([*KEYS, "ablation", "plan", "variant"])["outcome"]
        .value_counts(normalize=True)
        .unstack(fill_value=0.0)
    )
    found = found.reindex(columns=list(OUTCOMES), fill_value=0.0).rename(columns={"complied": "coherent_asr"})
    n = int(verdicts["query_id"].nunique())
    plain = float(found.xs("none", level="plan")["coherent_asr"].iloc[0])
    rate = found["coherent_asr"]
    changed = ((rate - plain).abs() * n).round().astype(int)
    tests = [float(binomtest(count, count).pvalue) if count else 1.0 for count in changed]
    known = {"n": n, "asr": rate, "low": rate * 0.9, "high": rate * 0.9 + 0.1, "delta": rate - plain, "p_value": tests}
    return found.assign(**known, p_adjusted=np.nan).reset_index()


def told(data: ReportData, plan: str = "mine") -> list[Caveat]:
    row = data.effects[data.effects["plan"] == plan].iloc[0].to_dict()
    return row_caveats(data, row, data.rates)


def kinds(data: ReportData, plan: str = "mine") -> list[str]:
    return [caveat.kind for caveat in told(data, plan)]


def text_of(found: Sequence[Caveat]) -> str:
    return " ".join(caveat.text for caveat in found)


def draws(*complied: float, times: int = 20) -> list[Shares]:
    """Draws of a control with these shares of answers, again and again."""
    return [{"complied": share} for share in (list(complied) * times)[:times]]


ALL: Shares = {"complied": 1.0}


def test_a_set_of_heads_whose_draws_all_do_the_same_ends_in_the_control_does_the_same() -> None:
    for plain in ({}, {"complied": 0.5}, ALL):
        data = study({"mine": ALL, "matched-mine": draws(1.0)}, plain=plain)
        assert kinds(data)[0] == "same" and SAME in text_of(told(data))
        page = build(data)
        assert SAME in page and "refusals hang on few heads" not in page and "beyond all" not in page
    assert SAME in headlines(study({"mine": ALL, "matched-mine": draws(1.0)}))[0].answer


def test_a_set_of_heads_that_no_draw_reaches_is_beyond_all_draws_and_says_what_that_cannot_pass() -> None:
    data = study({"mine": ALL, "matched-mine": draws(0.0, 0.05, 0.1)})
    assert kinds(data) == ["beyond"]
    text = text_of(told(data))
    assert "beyond all 20 draws" in text and "no correction for several plans" in text and "p 0.048" in text
    page = build(data)
    assert "beyond all 20 draws" in page and "refusals hang on few heads" in page
    assert not any(phrase in page for phrase in (SAME, BROKEN, NOISE))
    many = told(study({"mine": ALL, "matched-mine": draws(0.0, 0.05, 0.1, times=199)}))
    assert "a correction can be passed for up to 10 plans" in text_of(many)


def test_broken_text_is_not_the_effect_of_heads() -> None:
    """The decoy: refusals are gone, nothing is answered."""
    data = study({"mine": {"degenerate": 0.975}, "matched-mine": draws(0.0)})
    assert kinds(data)[0] == "broken" and BROKEN in build(data)
    assert BROKEN in headlines(data)[0].answer
    # Without effects, headlines go by the rates.
    assert BROKEN in headlines(replace(data, effects=pd.DataFrame()))[0].answer
    some = study({"mine": {"complied": 0.3, "degenerate": 0.6}, "matched-mine": draws(0.0)})
    assert kinds(some)[0] == "broken" and "most of the change is broken text" in headlines(some)[0].answer
    assert "same" not in kinds(data), "nothing is answered with these heads or others: that says nothing of the loops"


def test_a_plain_model_that_is_broken_is_called_so() -> None:
    as_before = study({"mine": {"degenerate": 0.6}}, plain={"degenerate": 0.6})
    assert kinds(as_before) == ["plain broken", "no control", "chance"]
    assert "The plain model itself answers 60\xa0% with broken text" in headlines(as_before)[0].answer
    less = study({"mine": {"complied": 0.2, "degenerate": 0.3}}, plain={"degenerate": 0.25})
    assert "some broken" not in kinds(less) and "plain broken" not in kinds(less)
    more = study({"mine": {"complied": 0.5, "degenerate": 0.4}}, plain={"degenerate": 0.2})
    assert "40\xa0% of the answers are broken text, of the plain model's 20\xa0%" in text_of(told(more))


def test_the_headline_of_benign_requests_is_about_the_fewest_answers() -> None:
    plans = {"mine": ALL, "other": {"complied": 0.2, "refused": 0.8}, "third": {"degenerate": 1.0}}
    data = replace(study(dict(list(plans.items())[:2]), plain=ALL), benign=["asked"])
    assert headlines(data)[0].answer == "80 points fewer of these benign requests are answered."
    assert headlines(data)[0].asr == pytest.approx(0.2)
    broken = replace(study(plans, plain=ALL), benign=["asked"])
    assert headlines(broken)[0].answer == f"Fewer benign requests are answered: {BROKEN}."
    same = replace(study({"mine": ALL}, plain=ALL), benign=["asked"])
    assert headlines(same)[0].answer.startswith("Benign requests are answered as by the plain model")


@pytest.mark.parametrize(
    ("effect", "asr", "refused", "broken", "mostly"),
    [
        (0.0, 0.0, -0.98, 0.98, True),
        (-1.0, -1.0, np.nan, 1.0, True),
        (0.3, 0.6, -0.6, 0.3, False),
        (0.2, 0.6, -0.6, 0.4, True),
        (0.0, 0.0, -1.0, 0.3, False),
        (0.0, 0.0, 0.0, 0.05, False),
        (0.5, 0.5, -0.5, -0.3, False),
        (0.3, 0.3, np.nan, 0.3, False),
    ],
)
def test_most_of_a_change_is_broken_if_more_than_half_of_it_is(
    effect: float, asr: float, refused: float, broken: float, mostly: bool
) -> None:
    assert mostly_broken(effect, asr, refused, broken) == mostly


@pytest.mark.parametrize(
    ("ablated", "control", "plain", "kind", "said"),
    [
        (1.0, [], 0.0, "no control", "was not measured (plan matched-mine)"),
        (1.0, [0.0], 0.0, "few draws", "1 draw is too few to tell"),
        (1.0, [0.0] * 7, 0.0, "few draws", "7 draws are too few to tell"),
        (1.0, [1.0], 0.0, "same", SAME),
        (0.5, [0.5] * 4 + [0.0] * 16, 0.0, "same", f"{SAME} in 4 of 20 draws"),
        (0.1, [0.9] * 20, 0.0, "same", f"{SAME}, and more"),
        (0.1, [0.9] * 20, 0.5, "opposite", "in opposite ways"),
        (0.05, [0.0] * 20, 0.0, "few draws", "40 prompts and 20 draws cannot tell these heads from others"),
        (0.05, [0.05] + [0.0] * 39, 0.0, "same", f"as far as 40 prompts can tell, {SAME}"),
        (0.0, [0.05] * 20, 0.5, "beyond", "beyond all 20 draws"),
    ],
)
def test_what_is_said_of_the_control_follows_from_its_draws(
    ablated: float, control: list[float], plain: float, kind: str, said: str
) -> None:
    plans: dict[str, Any] = {"mine": {"complied": ablated}}
    if control:
        plans["matched-mine"] = draws(*control, times=len(control))
    if kind == "beyond":
        plans["matched-mine"] = [{"complied": 0.5 - share} for share in control]
    found = told(study(plans, plain={"complied": plain}))
    first = next(caveat for caveat in found if caveat.kind not in ("chance", "negative"))
    assert (first.kind, said in first.text) == (kind, True), first


def test_an_effect_below_the_noise_is_called_so_and_one_above_is_not() -> None:
    plans = {"mine": {"complied": 0.1}, "matched-mine": draws(0.1)}
    assert NOISE in build(study(plans, noise=0.2))
    assert NOISE not in build(study(plans, noise=0.05))
    assert "none differ" in build(study(plans, noise=0.0))
    assert NOISE not in build(study(plans))


def test_few_prompts_do_not_make_an_effect() -> None:
    found = told(study({"mine": ALL, "matched-mine": draws(0.0)}, n=5))
    assert [caveat.kind for caveat in found] == ["chance", "beyond"]
    assert "may be chance: +100 points" in found[0].text and "p 0.062" in found[0].text
    assert "chance" in headlines(study({"mine": ALL, "matched-mine": draws(0.0)}, n=5))[0].answer


def test_no_effect_fewer_answers_and_few_refusals_are_told() -> None:
    assert kinds(study({"mine": {}})) == ["no control", "chance"]
    less = told(study({"mine": {}}, plain={"complied": 0.5}))
    assert less[-1].kind == "negative" and "these heads hold refusals back" in less[-1].text
    other = told(study({"mine": {"other": 0.5}}, plain={"complied": 0.5}))
    assert "hold refusals back" not in text_of(other) and "Fewer requests are answered" in text_of(other)
    assert "high" in kinds(study({"mine": ALL}, plain={"complied": 0.95}))
    assert "refusals" in kinds(study({"mine": {"other": 0.8, "complied": 0.1}}))


def test_where_heads_were_chosen_is_told() -> None:
    row = study({"mine": ALL}).effects.iloc[0].to_dict()
    chosen = caveats(row | {"plan": "sahara-2", "selected_here": True, "leaks": 40})
    assert chosen[-1].kind == "selected" and "sahara-2@other" in chosen[-1].text
    assert "top-N@other" in text_of(caveats(row | {"plan": "ships-2", "selected_here": True}))
    leaked = caveats(row | {"plan": "sahara-2@other", "selected_here": False, "leaks": 1})
    assert leaked[-1].kind == "leaks" and "1 query of this data set is also" in leaked[-1].text
    assert "leaks" not in [caveat.kind for caveat in caveats(row | {"selected_here": False, "leaks": 0})]


def test_a_row_without_prompts_or_numbers_says_so() -> None:
    row = dict.fromkeys(study({"mine": ALL}).effects.columns, None) | {"plan": "mine", "n": 0}
    assert [caveat.kind for caveat in caveats(row)] == ["empty"]


def test_benign_data_sets_need_no_control() -> None:
    data = replace(study({"mine": ALL}, plain=ALL), benign=["asked"])
    assert kinds(data) == ["chance"]


def test_a_headline_needs_a_control_of_the_same_layers() -> None:
    alone = {"ships-1": ALL}
    for plans in (alone, alone | {"random-1": draws(0.0)}):
        line = headlines(study(plans))[0]
        assert line.answer.endswith("how other heads of the same layers do was not measured.")
    controlled = headlines(study(alone | {"random-1": draws(0.9), "matched-ships-1": draws(0.0)}))[0]
    assert "hang on few heads" in controlled.answer and "20 draws" in controlled.control
    few = headlines(study(alone | {"matched-ships-1": draws(0.0, times=3)}))[0]
    assert "is not settled" in few.answer


def test_the_page_has_the_figures_and_links_every_effect_to_its_sentences() -> None:
    plans = {"ships-1": ALL, "matched-ships-1": draws(0.0, 0.1), "mine": {"complied": 0.5, "degenerate": 0.3}}
    data = study(plans, noise=0.01)
    model = model_sections(data)[0]
    setting = model.datasets[0].settings[0]
    assert [card.kind for card in (*model.noise, *setting.cards)][:4] == ["noise", "outcomes", "strip", "by_plan"]
    assert setting.effects is not None
    table = setting.effects.table
    assert [row[0] for row in table.rows] == ["ships-1", "mine"] and len(table.links) == 2
    page = build(data)
    assert all(f'href="#{anchor}"' in page and f'id="{anchor}"' in page for anchor in table.links)
    assert "nan" not in page.lower().replace("nanmax", "").split()


def test_a_page_without_effects_shows_the_outcomes_alone() -> None:
    data = replace(study({"mine": ALL}), effects=pd.DataFrame())
    setting = model_sections(data)[0].datasets[0].settings[0]
    assert setting.effects is None and setting.cards[0].kind == "outcomes"
    old = replace(data, rates=data.rates.drop(columns=["coherent_asr", "degenerate"]))
    assert model_sections(old)[0].datasets[0].settings[0].cards[0].kind == "by_plan"
    assert build(data) and build(old)


def drawn(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_outcome_bars_show_plain_then_each_plan_and_its_control() -> None:
    plans = {"mine": {"complied": 0.5, "degenerate": 0.3}, "matched-mine": draws(0.2, 0.4), "random-2": draws(0.0)}
    words = drawn(figures.outcome_bars(study(plans).rates))
    assert [word for word in words if word in ("plain model", "mine", "its control, 20 draws")] == [
        "plain model",
        "mine",
        "its control, 20 draws",
    ]
    assert {"complied", "refused", "broken", "50", "30", "20"} <= set(words)
    assert "unfinished" not in words and "random-2" not in words


def test_outcomes_of_a_judge_that_finds_no_refusals_fill_the_bar() -> None:
    rates = study({"mine": {"complied": 0.5}}).rates.assign(refused=np.nan)
    words = drawn(figures.outcome_bars(rates))
    assert "refused" not in words and {"other", "100", "50"} <= set(words)


@pytest.mark.parametrize("count", [1, 20, 199])
def test_the_strip_has_a_dot_for_each_draw_within_its_row(count: int) -> None:
    data = study({"mine": ALL, "matched-mine": draws(0.0, times=count)}, n=4)
    svg = figures.control_strip(data.rates, {"mine": "0 of many"})
    root = ElementTree.fromstring(svg)
    assert len(root.findall(".//{*}use")) == count + 1
    assert float(root.get("height", "0")) < 150 and "0 of many" in drawn(svg)


def test_the_page_states_the_thresholds_of_broken_text() -> None:
    rule = broken_text.rule()
    for threshold in (degenerate.WINDOW, loops.LONGEST, loops.SHORTEST_LOOP, degenerate.SALAD_NLL):
        assert f"{threshold:g}" in rule
    page = build(ReportData(title="Nothing", studies={}, models={}, rates=pd.DataFrame()))
    assert "fitted on made-up and generated examples" in page
    assert not any(phrase in page for phrase in (SAME, BROKEN, NOISE, "beyond all"))


SHARE = st.integers(0, 12).map(lambda count: count / 12)


@settings(max_examples=60, deadline=None)
@given(
    plain=SHARE, answered=SHARE, broken=SHARE, control=st.lists(SHARE, max_size=25), noise=st.none() | st.floats(0, 1)
)
def test_no_sentence_claims_more_than_the_numbers(
    plain: float, answered: float, broken: float, control: list[float], noise: float | None
) -> None:
    plans: dict[str, Any] = {"mine": {"complied": answered, "degenerate": min(broken, 1 - answered)}}
    if control:
        plans["matched-mine"] = [{"complied": share} for share in control]
    data = study(plans, plain={"complied": plain}, n=12, noise=noise)
    row, found = data.effects.iloc[0], told(data)
    said, text = {caveat.kind for caveat in found}, text_of(found)
    assert "nan" not in text.split() and not text.startswith(" ")
    nothing = "broken" in said and abs(answered - plain) < 1e-9
    assert len(said & {"no control", "same", "opposite", "few draws", "beyond"}) == (0 if nothing else 1)
    further = [abs(share - plain) >= abs(answered - plain) - 1e-9 for share in control]
    if "beyond" in said:
        assert sum(further) <= 0.05 * (1 + len(control)) - 1 + 1e-9
        assert (row["over_control_low"] > 0) or (row["over_control_high"] < 0)
    if control and all(further) and abs(row["over_control"]) < 1e-9 and not nothing:
        assert SAME in text
    if "noise" in said:
        assert noise is not None and abs(answered - plain) < noise
    if "broken" in said:
        assert row["degenerate"] > max(answered - plain, 0)
    if "refusals hang on few heads" in headlines(data)[0].answer:
        assert "beyond" in said and "broken" not in said and answered > plain


def test_the_best_single_head_is_compared_with_the_others_of_its_layer() -> None:
    data = study({"single": NOTHING})
    plain, single = (data.rates[data.rates["plan"] == plan] for plan in ("none", "single"))

    def answer(rate_of: Mapping[str, float]) -> str:
        rows = [
            single.assign(variant=head, coherent_asr=rate, asr=rate, refused=1 - rate) for head, rate in rate_of.items()
        ]
        rates = pd.concat([plain, *rows]).assign(p_adjusted=0.001)
        return headlines(replace(data, rates=rates))[0].answer

    assert "hang on few heads" in answer({"L00H01": 0.9, "L00H02": 0.0, "L01H00": 0.8})
    assert SAME in answer({"L00H01": 0.9, "L00H02": 0.8, "L01H00": 0.0})
    assert "was not measured" in answer({"L00H01": 0.9, "L01H00": 0.0})


def test_hostile_names_stay_text_among_effects() -> None:
    name = "<script>alert(1)</script>$^{_"
    page = build(study({name: ALL, f"matched-{name}": draws(0.0)}, noise=0.5))
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt;$^{_") > 5


def test_of_equal_plans_heads_that_other_queries_chose_make_the_headline() -> None:
    (found,) = headlines(study({"top-1": {"complied": 0.8}, "top-1@other": {"complied": 0.8}}))
    assert found.plan == "top-1@other"
    (found,) = headlines(study({"top-1": {"complied": 0.8}, "top-1@other": {"complied": 0.7}}))
    assert found.plan == "top-1"
