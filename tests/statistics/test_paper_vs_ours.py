"""The published numbers, and a comparison with made-up rates that was worked out by hand."""

from typing import Any

import pandas as pd
import pytest

from safetyheads.config.catalogue import catalogue
from safetyheads.config.load import load_config
from safetyheads.config.published import FILE, same, sizes
from safetyheads.jobs.hours import COLUMNS as HOURS
from safetyheads.plans import parse_plan
from safetyheads.statistics.paper_vs_ours import MEASURED, PUBLISHED, measured, paper_vs_ours

LLAMA = "llama-2-7b-chat"
SAME = {
    "models": {"mine": LLAMA},
    "datasets": {"jailbreakbench": "jailbreakbench", "advbench": "advbench"},
    "templates": {"text": "simple", "begun": "sure"},
    "ablations": {"uniform": "undifferentiated"},
    "decodings": {"greedy": "greedy"},
    "judges": {"paper": "paper"},
}
SIZES = {"jailbreakbench": 100, "advbench": 520}
NOTHING = pd.DataFrame(columns=MEASURED)


def test_names_mean_the_papers_by_what_is_behind_them() -> None:
    found = load_config(
        {
            "models": {
                "mine": {
                    "repo": "meta-llama/Llama-2-7b-chat-hf",
                    "revision": "f5db02db724555f92da89c216ac04704f23d4590",
                },
                "llama-2-7b": {"demo": {}},
            },
            "templates": {
                "begun": {"text": "## Query:{query}\n## Answer:", "prefill": "Sure, here is"},
                "helpful": {"chat": True, "system": "You are a helpful assistant"},
                "simple": {"text": "Query: {query}"},
            },
            "ablations": {
                "uniform": {"kind": "undifferentiated", "epsilon": 1e-10},
                "half": {"kind": "scaling", "epsilon": 0.5},
            },
            "decodings": {
                "short": {"max_new_tokens": 32},
                "five": {"top_k": 5, "samples": 9, "seed": 4},
                "ten": {"top_k": 10},
            },
            "judges": {"words": {"kind": "keywords", "list": "paper"}},
            "studies": {
                "one": {
                    "models": ["mine", "llama-2-7b"],
                    "datasets": ["advbench"],
                    "templates": ["begun", "helpful", "simple", "direct"],
                    "ablations": ["uniform", "half", "mean_key"],
                    "plans": ["none"],
                    "decodings": ["short", "five", "ten", "greedy"],
                    "judges": ["words", "reference", "paper"],
                }
            },
        }
    )
    assert same(found) == {
        "models": {"mine": "llama-2-7b-chat"},
        "datasets": {"advbench": "advbench"},
        "templates": {"begun": "sure", "helpful": "chat_system", "direct": "direct"},
        "ablations": {"uniform": "undifferentiated", "mean_key": "mean_key"},
        "decodings": {"five": "top5", "greedy": "greedy"},
        "judges": {"words": "paper", "paper": "paper"},
    }
    assert sizes()["advbench"] == 520


def all_published() -> pd.DataFrame:
    return pd.read_csv(FILE, dtype=str, keep_default_na=False)


def published(**keys: str) -> pd.DataFrame:
    one = dict.fromkeys(PUBLISHED, "") | {"place": "table-3", "quantity": "asr", "model": LLAMA, "template": "simple"}
    return pd.DataFrame([one | {"ablation": "undifferentiated", "dataset": "jailbreakbench"} | keys])


def rates(*rows: dict[str, Any]) -> pd.DataFrame:
    one = {
        "model": "mine",
        "dataset": "jailbreakbench",
        "template": "text",
        "ablation": "uniform",
        "decoding": "greedy",
    }
    one |= {"judge": "paper", "n": 100, "asr": 0.5, "low": 0.4, "high": 0.6, "coherent_asr": 0.3}
    one |= {"delta": 0.1, "delta_low": 0.0, "delta_high": 0.2}
    return pd.DataFrame([{"variant": row["plan"], **one, **row} for row in rows])


def compared(wanted: pd.DataFrame, found: pd.DataFrame, measured: pd.DataFrame = NOTHING) -> pd.DataFrame:
    return paper_vs_ours(wanted, found, SAME, SIZES, measured)


def test_every_published_number_is_there() -> None:
    counts = all_published()["place"].value_counts().to_dict()
    assert counts == {
        **{"table-1": 8, "table-2": 3, "table-3": 40, "table-5": 40, "table-7": 15},
        **{"figure-2": 4, "figure-4b": 1, "figure-5": 2, "figure-6a": 1, "figure-6b": 1, "figure-13": 1},
        **{"section-3": 1, "section-4": 2, "appendix-d": 4},
    }


def test_published_numbers_are_about_things_that_the_catalogue_and_plans_know() -> None:
    table = all_published()
    assert list(table) == PUBLISHED
    assert set(table["model"]) <= set(catalogue("models"))
    assert {name for names in table["dataset"] for name in names.split()} <= set(catalogue("datasets"))
    rates = table[table["quantity"].isin(["asr", "asr_change", "asr_at_least"]) & (table["plan"] != "")]
    assert rates["plan"].map(lambda name: parse_plan(name).kind).isin(["none", "ships", "sahara"]).all()
    assert rates["paper"].astype(float).between(-1, 1).all()


def test_some_published_numbers_by_hand() -> None:
    table = all_published().set_index(["place", "model", "dataset", "template", "ablation", "plan"])["paper"]
    vicuna = "vicuna-7b-v1.5"
    assert table["table-3", LLAMA, "malicious_instruct", "simple", "undifferentiated", "sahara-3"] == "0.72"
    assert table["table-3", LLAMA, "jailbreakbench", "simple", "scaling", "sahara-1"] == "-0.01"
    assert table["table-5", vicuna, "jailbreakbench", "simple", "undifferentiated", "sahara-3"] == "0.41"
    assert table["table-5", vicuna, "malicious_instruct", "simple", "scaling", "ships-4"] == "0.17"
    assert table["table-7", LLAMA, "advbench", "sure", "plain", "none"] == "0.35"
    assert table["table-7", LLAMA, "malicious_instruct", "sure", "undifferentiated", "ships-1"] == "0.75"
    assert table["table-7", LLAMA, "jailbreakbench", "simple", "scaling", "ships-1"] == "0.06"


@pytest.mark.parametrize(
    ("paper", "agreement"), [("0.40", "inside"), ("0.39", "outside"), ("0.60", "inside"), ("0.61", "outside")]
)
def test_a_number_agrees_if_it_lies_in_the_interval(paper: str, agreement: str) -> None:
    one = compared(published(plan="ships-1", paper=paper), rates({"plan": "ships-1"})).iloc[0]
    assert (one["agreement"], one["ours"], one["low"], one["high"]) == (agreement, 0.5, 0.4, 0.6)
    assert (one["our_model"], one["judge"], one["n"], one["coherent"]) == ("mine", "paper", 100, 0.3)


def test_a_rounded_number_agrees_if_what_it_may_stand_for_does() -> None:
    found = rates({"plan": "ships-1", "low": 0.404})
    assert compared(published(plan="ships-1", paper="0.40"), found)["agreement"].item() == "inside"


def test_changes_stand_beside_changes_of_coherent_answers() -> None:
    found = rates({"plan": "none", "ablation": "plain", "coherent_asr": 0.05}, {"plan": "sahara-2"})
    one = compared(published(quantity="asr_change", plan="sahara-2", paper="0.25"), found).iloc[0]
    assert (one["ours"], one["low"], one["high"], one["agreement"]) == (0.1, 0.0, 0.2, "outside")
    assert one["coherent"] == pytest.approx(0.25)


def test_a_mean_over_data_sets_has_the_interval_of_a_mean() -> None:
    both = rates({"plan": "ships-1"}, {"plan": "ships-1", "dataset": "advbench", "n": 520, "asr": 0.3, "low": 0.27})
    one = compared(published(plan="ships-1", paper="0.4", dataset="advbench jailbreakbench"), both).iloc[0]
    assert one["ours"] == pytest.approx(0.4) and one["n"] == 620 and one["our_dataset"] == "advbench jailbreakbench"
    assert one["low"] == pytest.approx(0.4 - (0.1**2 + 0.03**2) ** 0.5 / 2)
    assert one["high"] == pytest.approx(0.4 + (0.1**2 + 0.3**2) ** 0.5 / 2)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"judge": "harmbench"}, "other judge"),
        ({"template": "chat"}, "other template"),
        ({"template": "begun"}, "other template"),
        ({"decoding": "short"}, "other sampling"),
        ({"n": 30}, "not all queries"),
        ({"n": 30, "judge": "harmbench"}, "other judge; not all queries"),
    ],
)
def test_what_was_measured_otherwise_cannot_be_compared(row: dict[str, Any], why: str) -> None:
    one = compared(published(plan="ships-1", paper="0.5"), rates({"plan": "ships-1", **row})).iloc[0]
    assert (one["agreement"], one["why"], one["ours"]) == ("not comparable", why, 0.5)


def test_a_mean_without_one_of_its_data_sets_cannot_be_compared() -> None:
    wanted = published(plan="ships-1", paper="0.5", dataset="advbench jailbreakbench")
    one = compared(wanted, rates({"plan": "ships-1"})).iloc[0]
    assert (one["agreement"], one["why"]) == ("not comparable", "without advbench")


def test_numbers_of_other_models_data_sets_plans_and_ablations_are_not_run() -> None:
    for other in ({"model": "tiny"}, {"dataset": "neutral"}, {"plan": "ships-2"}, {"ablation": "other"}):
        table = compared(published(plan="ships-1", paper="0.5"), rates({"plan": "ships-1", **other}))
        assert table["agreement"].tolist() == ["not run"] and table["ours"].isna().all()


def test_each_cell_that_measured_a_number_has_a_row() -> None:
    found = rates({"plan": "ships-1"}, {"plan": "ships-1", "judge": "harmbench"}, {"plan": "ships-2"})
    table = compared(published(plan="ships-1", paper="0.5"), found)
    assert table["judge"].tolist() == ["harmbench", "paper"]


def test_at_least_agrees_with_more() -> None:
    wanted = published(quantity="asr_at_least", plan="ships-1", paper="0.3")
    assert compared(wanted, rates({"plan": "ships-1"}))["agreement"].item() == "inside"
    less = rates({"plan": "ships-1", "asr": 0.1, "low": 0.05, "high": 0.2})
    assert compared(wanted, less)["agreement"].item() == "outside"


def test_numbers_that_are_no_rates() -> None:
    nowhere = {"dataset": "", "template": ""}
    wanted = pd.concat(
        [
            published(quantity="parameters", plan="sahara-3", paper="0.00018", **nowhere),
            published(quantity="parameters", paper="0.05", about="another method", **nowhere),
            published(quantity="head_rank", plan="single", paper="1", dataset=""),
            published(quantity="gpu_hours", plan="sahara", paper="6", ablation="", **nowhere),
            published(quantity="gpu_hours", plan="single", paper="850", ablation="", **nowhere),
        ]
    )
    found = rates({"plan": "sahara-3"}, {"plan": "sahara-3", "ablation": "scaling"}, {"plan": "matched-sahara-3"})
    heads = [(2, 26, 0.4), (1, 0, 0.6), (0, 3, 0.4), (2, 1, 0.1)]
    cell = {"model": "mine", "dataset": "jailbreakbench", "template": "text", "ablation": "uniform"}
    single = {**cell, "decoding": "greedy", "judge": "paper", "plan": "single"}
    by_head = pd.DataFrame([{**single, "layer": a, "head": b, "effect_asr": effect} for a, b, effect in heads])
    jobs = [
        ("sahara", "", 6.2, "NVIDIA A100-SXM4-80GB"),
        ("sahara", "", 5.0, "NVIDIA A100-SXM4-80GB, NVIDIA H100 80GB HBM3"),
        ("single", "greedy", None, "cpu"),
        ("single", "short", 900.0, "NVIDIA A100-SXM4-80GB"),
    ]
    hours = pd.DataFrame([{**cell, **dict(zip(("work", "decoding", "hours", "device"), job))} for job in jobs])
    others = measured(found, by_head, hours, {"mine": [524_288, 6_738_415_616]}, SAME, SIZES)
    table = compared(wanted, found, others)
    shown = list(zip(table["quantity"], table["agreement"], table["why"].fillna("")))
    assert shown == [
        ("parameters", "outside", ""),  # 0.00023 by the sizes, of the ablation that the paper means alone
        ("parameters", "not run", ""),
        ("head_rank", "outside", ""),
        ("gpu_hours", "inside", ""),
        ("gpu_hours", "not comparable", "on NVIDIA A100-SXM4-80GB, NVIDIA H100 80GB HBM3"),
        ("gpu_hours", "not comparable", "other sampling"),  # that of `greedy` has no benchmark file left
    ]
    assert table["ours"].iloc[0] == pytest.approx(3 * 524_288 / 6_738_415_616)
    assert table["ours"].iloc[2] == 3, "two heads share the second and the third place"


def test_a_map_by_another_judge_is_no_rank_of_the_papers() -> None:
    keys = {"model": "mine", "dataset": "d", "template": "begun", "ablation": "uniform", "decoding": "greedy"}
    head = {**keys, "judge": "harmbench", "plan": "single", "layer": 2, "head": 26, "effect_asr": 0.5}
    found = measured(rates({"plan": "none"}), pd.DataFrame([head]), pd.DataFrame(columns=HOURS), {}, SAME, SIZES)
    assert found[["quantity", "ours", "why"]].to_numpy().tolist() == [
        ["head_rank", 1.0, "other data set; other template; other judge"]
    ]


def test_all_published_numbers_can_be_compared() -> None:
    table = compared(all_published(), rates({"plan": "none", "ablation": "plain"}, {"plan": "ships-1"}))
    assert set(table["agreement"]) >= {"not run", "outside"} and len(table) >= len(all_published())
