"""The tables of experiments, from small tables that were worked out by hand, and their figures."""

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from made_up_study import study

from safetyheads.artifacts.latex import latex
from safetyheads.report.figures.experiments import Results, experiment_figure
from safetyheads.report.figures.sheets import Panel, sheet
from safetyheads.statistics.checkpoints import checkpoints_table
from safetyheads.statistics.effects import Study, effects
from safetyheads.statistics.experiments import (
    distribution_table,
    maps_table,
    overlap_table,
    parameters_table,
    rates_table,
    utility_table,
)
from safetyheads.statistics.intervals import difference_interval
from safetyheads.statistics.maps import maps
from safetyheads.statistics.rates import rates

NOTHING = pd.DataFrame()
CELL = {"model": "m", "dataset": "d", "template": "t", "ablation": "scaling"}


def scores(values: list[float], **keys: Any) -> pd.DataFrame:
    """Scores of a grid of two layers, the heads in order."""
    heads = [(at // (len(values) // 2), at % (len(values) // 2)) for at in range(len(values))]
    rows = [{"layer": layer, "head": head, "score": value} for (layer, head), value in zip(heads, values)]
    return pd.DataFrame(rows).assign(**(CELL | keys))


def drawn(kind: str, results: Results) -> ElementTree.Element:
    return ElementTree.fromstring(experiment_figure(kind, results, "a label", "f"))


def words(root: ElementTree.Element) -> str:
    return " ".join(text for text in root.itertext())


def test_scores_that_differ_in_one_thing_are_compared() -> None:
    up, down = list(np.arange(24.0)), list(-np.arange(24.0))
    tables = [scores(up), scores(up, dataset="e"), scores(down, ablation="mean_key"), scores(up, template="u")]
    table = overlap_table({"sahara": pd.concat(tables)})
    assert table["differ"].tolist() == ["ablation", "dataset"], "nor two things, nor the template"
    of_ablations, of_datasets = table.to_dict("records")
    assert (of_datasets["dataset"], of_datasets["other"], of_datasets["shared"]) == ("d", "e", 10)
    assert of_datasets["jaccard"] == 1 and of_datasets["rbo"] == pytest.approx(1)
    # The first 10 of 24 heads and their last 10 share none.
    assert (of_ablations["shared"], of_ablations["jaccard"], of_ablations["p_value"]) == (0, 0, 1)
    assert of_ablations["rbo"] < of_ablations["rbo_by_chance"] < of_datasets["rbo"]


def test_models_of_other_shapes_are_not_compared() -> None:
    assert overlap_table({"ships": pd.concat([scores([1.0, 2.0]), scores([1.0, 2.0, 3.0, 4.0], model="n")])}).empty
    assert overlap_table({}).empty


def test_of_a_search_the_first_step_counts_and_of_ships_the_mean() -> None:
    searched = pd.concat([scores([4.0, 3.0, 2.0, 1.0]).assign(step=1), scores([9.0, 9.0, 9.0, 9.0]).assign(step=2)])
    prompts = pd.concat([scores([1.0, 0.0, 0.0, 0.0]), scores([3.0, 0.0, 0.0, 4.0])])
    table = distribution_table({"sahara": searched, "ships": prompts})
    assert table["highest"].tolist() == [4.0, 2.0] and table["heads"].tolist() == [4, 4]
    assert table["first_10_percent"].tolist() == [0.4, 0.5]


def test_the_table_of_rates_has_a_row_for_each_plan_and_its_control_beside() -> None:
    tables = study()
    of_rates = rates(tables.verdicts, harm_judges=["harm"])
    of_effects = effects(Study(**tables._asdict(), harm_judges=["harm"]))
    table = rates_table(of_rates, of_effects)
    assert not table["plan"].str.match("single|random|matched").any()
    assert set(table["plan"]) >= {"none", "mine", "ships-2", "sahara-2"}
    assert not table.duplicated(["model", "dataset", "template", "ablation", "plan", "decoding", "judge"]).any()
    both = table.merge(of_effects, on=list(of_effects.columns[:7]), suffixes=("", "_effect"))
    assert len(both) == len(of_effects) and both["over_control"].notna().any()
    pd.testing.assert_series_equal(both["over_control"], both["over_control_effect"], check_names=False)
    assert "mine, scaling" in words(drawn("asr", Results(table, of_rates, NOTHING, {})))
    sources = table.drop_duplicates("plan").set_index("plan")["source"]
    assert sources["sahara-2"] == "harmful" and sources["sahara-2@chosen"] == "chosen" and pd.isna(sources["mine"])
    assert "chosen on chosen" in words(drawn("transfer", Results(table, of_rates, NOTHING, {})))
    changed = parameters_table(table, {"m": (50, 1000)}, {"mine": 3}).drop_duplicates("plan").set_index("plan")
    assert changed.loc[["none", "mine", "sahara-2"], "heads"].tolist() == [0, 3, 2]
    assert changed.loc[["none", "mine", "sahara-2"], "share"].tolist() == [0, 0.15, 0.1]
    assert parameters_table(table, {}, {})["share"].isna().all()
    assert "sahara-2, 10.000%" in words(drawn("parameters", Results(changed.reset_index(), of_rates, NOTHING, {})))
    assert "heads ablated" in words(drawn("doses", Results(table, of_rates, NOTHING, {})))


def test_the_table_of_maps_names_the_head_of_highest_asr() -> None:
    of_maps = maps(study().verdicts)
    table = maps_table(*of_maps)
    keys = list(of_maps.maps.columns[:7])
    both = of_maps.by_head.merge(table, on=keys)
    first = both[[f"L{layer:02d}H{head:02d}" for layer, head in zip(both["layer"], both["head"])] == both["first"]]
    assert len(first) == len(table) > 0
    assert first["effect_asr"].tolist() == both.groupby(keys)["effect_asr"].max().tolist()
    assert "coherent ASR" in words(drawn("maps", Results(table, NOTHING, of_maps.by_head, {})))


def test_figures_of_scores_are_drawn_and_equal_each_time() -> None:
    chance = np.random.default_rng(0)
    tables = {"ships": pd.concat([scores(list(chance.random(24)), dataset=name) for name in ("d", "e")])}
    of_overlap = Results(overlap_table(tables), NOTHING, NOTHING, tables)
    assert "d | e" in words(drawn("overlap", of_overlap)) and "by chance" in words(drawn("overlap", of_overlap))
    text = words(drawn("distribution", Results(distribution_table(tables), NOTHING, NOTHING, tables)))
    assert "cumulative distribution" in text and "density" in text and "mathdefault" not in text
    again = [experiment_figure("overlap", of_overlap, "a label", "f") for _ in range(2)]
    assert again[0] == again[1]


def test_a_sheet_has_its_panels_beside_and_below_each_other() -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="360" height="{}"><g/></svg>'
    root = ElementTree.fromstring(sheet([Panel(f"panel {n}", svg.format(100 + n)) for n in range(3)], "a label"))
    inner = [part for part in root if part.tag.endswith("svg")]
    assert [part.get("x") for part in inner] == ["0", "378", "0"]
    assert inner[0].get("y") == inner[1].get("y") and float(inner[2].get("y", 0)) > float(inner[0].get("y", 0)) + 101
    assert [f"panel {n}" in words(root) for n in range(3)] == [True] * 3 and root.get("aria-label") == "a label"


def test_a_table_for_papers_escapes_what_latex_reads() -> None:
    table = pd.DataFrame({"plan": ["sahara_centred-1"], "low_%": [0.12345], "empty": [np.nan]})
    text = latex(table, "50 % of a_b")
    assert "sahara\\_centred-1 & 0.123" in text and "low \\%" in text and "empty" not in text
    assert "50 \\% of a\\_b" in text


def test_the_table_of_utility_compares_item_by_item() -> None:
    keys = {"model": "m", "dataset": "d", "template": "t", "task": "mild", "metric": "acc"}
    items = [
        *(
            {**keys, "ablation": "plain", "plan": "none", "item": at, "value": value}
            for at, value in enumerate([1, 1, 0, 0])
        ),
        *(
            {**keys, "ablation": "scaling", "plan": "mine", "item": at, "value": value}
            for at, value in enumerate([1, 0, 1, 1])
        ),
    ]
    table = utility_table(pd.DataFrame(items))
    plain, mine = table.sort_values("ablation").to_dict("records")
    assert (plain["accuracy"], plain["plain"], plain["change"]) == (0.5, 0.5, 0) and np.isnan(plain["change_low"])
    assert (mine["n"], mine["accuracy"], mine["plain"], mine["change"]) == (4, 0.75, 0.5, 0.25)
    low, high = difference_interval([0, -1, 1, 1])
    assert (mine["change_low"], mine["change_high"]) == (low, high)
    assert "mine, scaling" in words(drawn("utility", Results(table, NOTHING, NOTHING, {})))


def curve(model: str, *coherent: float, **keys: str) -> list[dict[str, Any]]:
    """The rates of a plain model, and with 1, 2, ... heads of Sahara ablated."""
    cell = {"model": model, "dataset": "d", "template": "t", "decoding": "g", "judge": "j"} | keys
    plans = [("plain", "none"), *(("scaling", f"sahara-{n}") for n in range(1, len(coherent)))]
    of_each = dict.fromkeys(("asr", "degenerate", "refused"), 0.0)
    return [
        {**cell, "ablation": ablation, "plan": plan, "variant": plan, **of_each, "coherent_asr": value}
        for (ablation, plan), value in zip(plans, coherent, strict=True)
    ]


def test_two_checkpoints_side_by_side() -> None:
    found = pd.DataFrame(
        [*curve("base", 0.1, 0.3, 0.5, 0.4), *curve("tuned", 0.0, 0.1, 0.2), *curve("other", 0.7, 0.6)]
    )
    of_base = scores([4.0, 3.0, 2.0, 1.0], model="base", step=1)
    of_tuned = scores([4.0, 2.0, 3.0, 1.0], model="tuned", step=1)
    of_other = scores([4.0, 2.0, 3.0, 1.0, 0.0, 0.0], model="other", step=1)
    tables = {"sahara": pd.concat([of_base, of_tuned, of_other])}
    table = checkpoints_table(found, tables, ["base", "tuned", "other"])
    assert table[["before", "after"]].to_numpy().tolist() == [["base", "tuned"], ["base", "other"], ["tuned", "other"]]
    first, second, _ = table.to_dict("records")
    assert (first["needed_before"], first["largest_before"], first["largest_after"]) == (2, 3, 2)
    assert pd.isna(first["needed_after"]) and second["needed_after"] == 0
    assert (first["plain_before"], first["highest_before"], first["highest_after"]) == (0.1, 0.5, 0.2)
    assert (first["heads"], first["rank_correlation"]) == (4, pytest.approx(0.8))  # 1 - 6 * 2 / (4 * 15)
    assert pd.isna(second["heads"]) and np.isnan(second["rank_correlation"]), "other shapes have no common heads"
    root = drawn("checkpoints", Results(table, found, NOTHING, tables))
    assert "sahara, d, t" in words(root) and "rank correlation of scores 0.80" in words(root) and "tuned" in words(root)


def test_checkpoints_are_compared_where_both_were_measured_alike() -> None:
    found = pd.DataFrame([*curve("base", 0.1, 0.3), *curve("tuned", 0.0, 0.1, judge="k")])
    assert checkpoints_table(found, {}, ["base", "tuned"]).empty


def test_hours_are_drawn_by_what_took_them() -> None:
    rows = [
        {**CELL, "work": work, "hours": took, "device": "cpu"}
        for work, took in [("ships", 0.5), ("ships", 1.0), ("single", 90.0)]
    ]
    root = drawn("hours", Results(pd.DataFrame(rows), NOTHING, NOTHING, {}))
    assert {"ships", "single", "1.5", "90"} <= {text.strip() for text in root.itertext()}
    drawn("hours", Results(pd.DataFrame(rows).assign(hours=np.nan), NOTHING, NOTHING, {}))
