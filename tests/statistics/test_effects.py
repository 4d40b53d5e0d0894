"""Effects from verdicts and completions: recomputed by hand, paired, beside their controls, and never nan."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_up_study import GRID, GROUP, Tables, cell, study
from statsmodels.stats.multitest import multipletests

from safetyheads.artifacts import files
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import all_heads
from safetyheads.statistics.effects import BY_CATEGORY, COLUMNS, FAMILY, KINDS, Study, effects, effects_by_category
from safetyheads.statistics.intervals import difference_interval
from safetyheads.statistics.pairs import PLAN_KEYS
from safetyheads.statistics.significance import sign_test

STUDY = study()
OPTIONS = {"benign": ["benign"], "harm_judges": ["harm"]}
EFFECTS = effects(Study(*STUDY, **OPTIONS))
PLANS = ["mine", "sahara-2", "sahara-2@chosen", "ships-2"]
UNLABELLED = [name for name in COLUMNS if name.startswith("corrected_")]
"""Columns that are null without labels: see test_corrected_tables.py."""
WITH_CONTROL = ["mine", "sahara-2@chosen", "ships-2"]


def row(table: pd.DataFrame = EFFECTS, *, plan: str, judge: str = "refusals", dataset: str = "harmful") -> pd.Series:
    (found,) = (one for _, one in cell(table, plan=plan, judge=judge, dataset=dataset).iterrows())
    return found


def by_hand(
    tables: Tables, plan: str, kind: str, judge: str = "refusals", dataset: str = "harmful"
) -> dict[str, pd.DataFrame]:
    """For each variant of a plan its prompts' values: `ablated` and `plain`, one row after the other."""
    asked = cell(tables.verdicts, judge=judge, dataset=dataset)
    good = {(v.plan, v.variant, v.query_id, v.sample): v for v in asked.itertuples()}

    def value(verdict: object) -> float:
        return float(verdict.harmful if kind == "asr" else verdict.outcome == kind)  # type: ignore[attr-defined]

    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (name, variant, query, sample), verdict in good.items():
        if name == plan and not variant.startswith("plain"):
            own = (plan, verdict.paired) if isinstance(verdict.paired, str) else ("none", "none")
            pair = (value(verdict), value(good[(*own, query, sample)]))
            found.setdefault(variant, {}).setdefault(query, []).append(pair)
    return {
        variant: pd.DataFrame(
            {query: np.mean(pairs, axis=0) for query, pairs in prompts.items()}, ["ablated", "plain"]
        ).T
        for variant, prompts in found.items()
    }


def test_there_is_a_row_for_every_attributed_plan_and_head_set_of_a_cell_and_no_other() -> None:
    assert list(EFFECTS) == COLUMNS
    for judge in ("refusals", "harm"):
        assert sorted(cell(EFFECTS, judge=judge, dataset="harmful")["plan"]) == PLANS
        assert sorted(cell(EFFECTS, judge=judge, dataset="benign")["plan"]) == ["mine", "sahara-2@chosen"]
    assert EFFECTS[PLAN_KEYS].equals(EFFECTS[PLAN_KEYS].sort_values(PLAN_KEYS, ignore_index=True))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_what_pandas_makes_of_the_verdicts(plan: str, kind: str) -> None:
    found, end = row(plan=plan), KINDS[kind]
    values = by_hand(STUDY, plan, kind)[plan]
    difference = values["ablated"] - values["plain"]
    assert found["n"] == len(values) == 6
    assert found[f"plain{end}"] == pytest.approx(values["plain"].mean())
    assert found[f"ablated{end}"] == pytest.approx(values["ablated"].mean())
    assert found[f"effect{end}"] == pytest.approx(difference.mean())
    bounds = difference_interval(difference.to_numpy(), 2)
    assert (found[f"effect_low{end}"], found[f"effect_high{end}"]) == pytest.approx(bounds)
    assert found[f"p_value{end}"] == pytest.approx(sign_test((difference > 0.1).sum(), (difference < -0.1).sum()))
    family = EFFECTS[np.logical_and.reduce([EFFECTS[key] == found[key] for key in FAMILY])]
    assert len(family) == 4
    adjusted = dict(zip(family["plan"], multipletests(family[f"p_value{end}"], method="holm")[1]))
    assert found[f"p_adjusted{end}"] == pytest.approx(adjusted[plan])


@pytest.mark.parametrize("plan", WITH_CONTROL)
def test_controls_are_what_pandas_makes_of_the_verdicts(plan: str) -> None:
    found = row(plan=plan)
    for kind, end in (("complied", ""), ("asr", "_asr")):
        own = by_hand(STUDY, plan, kind)[plan]
        draws = by_hand(STUDY, f"matched-{plan}", kind)
        effect = (own["ablated"] - own["plain"]).mean()
        of_draws = [(draw["ablated"] - draw["plain"]).mean() for draw in draws.values()]
        assert len(draws) == found["draws"] == 5
        assert found[f"over_control{end}"] == pytest.approx(effect - np.mean(of_draws))
        as_far = sum(abs(other) > abs(effect) - 1e-6 for other in of_draws)
        assert found[f"p_control{end}"] == pytest.approx((1 + as_far) / 6)
        if kind == "complied":
            assert found["control"] == pytest.approx(np.mean([draw["ablated"].mean() for draw in draws.values()]))
    assert found["over_control_low"] < found["over_control"] < found["over_control_high"]
    assert found["p_control_least"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("plan", PLANS)
def test_what_stands_beside_an_effect_is_what_pandas_makes_of_the_verdicts(plan: str) -> None:
    found, own = row(plan=plan), by_hand(STUDY, plan, "complied")[plan]
    assert found["uniform"] == pytest.approx(
        np.mean([draw["ablated"].mean() for draw in by_hand(STUDY, "random-2", "complied").values()])
    )
    effect = (own["ablated"] - own["plain"]).mean()
    assert found["potency"] == pytest.approx(effect / (1 - own["plain"].mean() if effect > 0 else own["plain"].mean()))
    single = by_hand(STUDY, "single", "complied")
    assert set(single) == set(map(str, all_heads(*GRID)))
    alone = {head: values["ablated"] - values["plain"] for head, values in single.items()}
    made = cell(STUDY.completions, plan=plan, dataset="harmful", sample=0).set_index("query_id")["heads"]
    names = {query: [f"L{head['layer']:02d}H{head['head']:02d}" for head in heads] for query, heads in made.items()}
    parts = np.mean([sum(alone[name][query] for name in names[query]) for query in own.index])
    assert found["interaction"] == pytest.approx(effect - parts)
    broken = by_hand(STUDY, plan, "degenerate")[plan]["ablated"]
    assert found["degenerate"] == pytest.approx(broken.mean())


def test_the_harmless_side_is_that_of_the_same_heads_on_benign_prompts() -> None:
    for plan, there in (("mine", "mine"), ("sahara-2@chosen", "sahara-2@chosen"), ("sahara-2", "sahara-2@chosen")):
        made = cell(STUDY.completions, plan=there, dataset="benign")
        assert row(plan=plan)["harmless_kl"] == pytest.approx(made["first_kl"].mean())
        refused = by_hand(STUDY, there, "refused", dataset="benign")[there]
        assert row(plan=plan)["over_refusal"] == pytest.approx((refused["ablated"] - refused["plain"]).mean())
    assert pd.isna(row(plan="ships-2")["harmless_kl"]), "each prompt has heads of its own"
    assert pd.isna(row(effects(Study(*STUDY)), plan="mine")["harmless_kl"]), "no data set is called benign"


def test_refusals_are_null_for_judges_that_look_for_harm() -> None:
    refusals = [name for name in COLUMNS if name.endswith("_refused")] + ["over_refusal"]
    assert cell(EFFECTS, judge="harm")[refusals].isna().all(axis=None)
    assert cell(EFFECTS, judge="refusals", plan="mine")[refusals].notna().all(axis=None)
    assert cell(EFFECTS, judge="harm", plan="mine")["harmless_kl"].notna().all()


def test_what_a_study_did_not_run_is_null() -> None:
    ran = STUDY.verdicts["plan"].isin(["none", "mine"])
    alone = effects(Study(STUDY.verdicts[ran], *STUDY[1:]))
    null = ["control", "over_control", "over_control_low", "over_control_high", "p_control", "p_control_least", "draws"]
    null += ["over_control_asr", "p_control_asr", "uniform", "interaction", "harmless_kl", "over_refusal", "leaks"]
    null += ["selected_here", *UNLABELLED]
    found = row(alone, plan="mine")
    assert [name for name in COLUMNS if pd.isna(found[name])] == null
    same = [name for name in COLUMNS if name not in null and not name.startswith("p_adjusted")]
    assert found[same].equals(row(plan="mine")[same])


def test_a_group_s_own_heads_measured_one_by_one_serve_as_single() -> None:
    verdicts = STUDY.verdicts
    single = verdicts["plan"] == "single"
    used = verdicts["variant"].isin([*map(str, GROUP), "plain", "plain-1"])
    others = verdicts.assign(plan=verdicts["plan"].mask(single, "each-sahara-2"))[~single | used]
    found = effects(Study(others, *STUDY[1:]))
    assert row(found, plan="sahara-2")["interaction"] == row(plan="sahara-2")["interaction"]
    assert pd.isna(row(found, plan="mine")["interaction"])


def test_leaks_are_counted_after_case_spaces_and_punctuation_and_dropped_where_a_study_says_so() -> None:
    assert [row(plan=plan)["leaks"] for plan in PLANS[1:]] == [6, 2, 6]
    assert [row(plan=plan)["selected_here"] for plan in PLANS[1:]] == [True, False, True]
    assert pd.isna(row(plan="mine")["leaks"]) and pd.isna(row(plan="mine")["selected_here"])
    cells = [tuple(one[key] for key in PLAN_KEYS) for _, one in EFFECTS.iterrows()]
    dropped = effects(Study(*STUDY, **OPTIONS, drop_leaks=cells))
    assert [row(dropped, plan=plan)["n"] for plan in PLANS] == [6, 6, 4, 6]
    kept = STUDY.verdicts["query_id"].isin([f"harmful-{at:04d}" for at in (0, 2, 3, 5)])
    without = effects(Study(STUDY.verdicts[kept | (STUDY.verdicts["dataset"] == "benign")], *STUDY[1:], **OPTIONS))
    same = [name for name in COLUMNS if name != "leaks" and not name.startswith("p_adjusted")]
    pd.testing.assert_series_equal(
        row(dropped, plan="sahara-2@chosen")[same], row(without, plan="sahara-2@chosen")[same], check_names=False
    )
    assert row(dropped, plan="sahara-2@chosen")["leaks"] == 2


def test_a_plan_whose_prompts_are_all_leaked_keeps_its_row_without_numbers() -> None:
    queries = STUDY.datasets[STUDY.datasets["dataset"] == "harmful"].assign(dataset="chosen")
    cells = [tuple(one[key] for key in PLAN_KEYS) for _, one in EFFECTS.iterrows()]
    datasets = pd.concat([STUDY.datasets, queries])
    found = row(effects(Study(STUDY.verdicts, STUDY.completions, datasets, drop_leaks=cells)), plan="sahara-2@chosen")
    assert (found["n"], found["leaks"], found["selected_here"]) == (0, 6, False)
    others = [name for name in COLUMNS[len(PLAN_KEYS) + 1 :] if name not in ("leaks", "selected_here")]
    assert found[others].isna().all()


def test_a_category_s_row_is_that_of_a_study_of_its_prompts_alone() -> None:
    found = effects_by_category(Study(*STUDY, **OPTIONS))
    assert list(found) == BY_CATEGORY
    assert set(found["category"]) == {"even", "odd"}
    assert len(found) == 2 * len(EFFECTS)
    even = STUDY.verdicts["query_id"].str[-1].isin(list("024")) | (STUDY.verdicts["dataset"] == "benign")
    alone = effects(Study(STUDY.verdicts[even], *STUDY[1:], **OPTIONS))
    same = [name for name in COLUMNS if name != "leaks" and not name.startswith("p_adjusted")]
    for plan in PLANS:
        category = row(cell(found, category="even"), plan=plan)
        pd.testing.assert_series_equal(category[same], row(alone, plan=plan)[same], check_names=False)
    family = cell(found, judge="refusals", dataset="harmful")
    assert family["p_adjusted"].tolist() == multipletests(family["p_value"], method="holm")[1].tolist()


def test_a_data_set_without_categories_has_no_rows_by_category() -> None:
    found = effects_by_category(Study(STUDY.verdicts, STUDY.completions, STUDY.datasets.assign(category=None)))
    assert list(found) == BY_CATEGORY and len(found) == 0


def certain() -> Tables:
    """A study in which every answer complies as soon as any heads are ablated, and none does before."""
    made = study(samples=1, prompts=20, draws=12)
    plain = (made.verdicts["plan"] == "none") | made.verdicts["variant"].str.startswith("plain")
    outcome = pd.Series("complied", made.verdicts.index).mask(plain, "refused")
    return made._replace(verdicts=made.verdicts.assign(outcome=outcome, harmful=~plain))


def test_a_set_that_does_what_all_its_draws_do_has_no_effect_over_its_control() -> None:
    found = effects(Study(*certain(), **OPTIONS))
    for plan in WITH_CONTROL:
        one = row(found, plan=plan)
        assert (one["plain"], one["ablated"], one["effect"], one["control"], one["potency"]) == (0, 1, 1, 1, 1)
        assert one["over_control"] == one["over_control_asr"] == 0
        assert one["over_control_low"] < 0 < one["over_control_high"]
        assert one["p_control"] == one["p_control_asr"] == 1
        assert one["draws"] == 12 and one["p_control_least"] == pytest.approx(1 / 13)
        assert one["effect_low"] > 0.6 and one["p_value"] < 1e-4


def test_potency_is_null_where_nothing_could_change() -> None:
    made = certain()
    refused = made._replace(verdicts=made.verdicts.assign(outcome="refused", harmful=False))
    complied = made._replace(verdicts=made.verdicts.assign(outcome="complied", harmful=True))
    assert row(effects(Study(*refused)), plan="mine")["potency"] == 0
    assert pd.isna(row(effects(Study(*complied)), plan="mine")["potency"])


@pytest.mark.parametrize("prompts", [1, 6])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("outcome", ["complied", "refused", "degenerate", None])
def test_nothing_that_was_measured_is_ever_nan(prompts: int, samples: int, outcome: str | None) -> None:
    made = study(1, prompts, samples)
    if outcome:
        made = made._replace(verdicts=made.verdicts.assign(outcome=outcome, harmful=outcome == "complied"))
    found = effects(Study(*made, **OPTIONS))
    numbers = [name for name in COLUMNS if name not in ("potency", "leaks", "selected_here", *UNLABELLED)]
    assert cell(found, judge="refusals", dataset="harmful", plan="sahara-2@chosen")[numbers].notna().all(axis=None)
    for low, value, high in (
        ("effect_low", "effect", "effect_high"),
        ("over_control_low", "over_control", "over_control_high"),
    ):
        known = found[found[value].notna()]
        assert ((known[low] <= known[value]) & (known[value] <= known[high])).all()
        assert (known[low] < known[high]).all()
    assert EFFECTS[["effect_low", "effect_high"]].abs().max(axis=None) <= 1


def test_answers_pair_with_the_plain_row_of_their_own_batch() -> None:
    """If only the plain rows of the control's own batches comply, the control has done nothing, or the contrary."""
    verdicts = certain().verdicts
    within = (verdicts["plan"] == "matched-mine") & verdicts["variant"].str.startswith("plain")
    moved = verdicts.assign(outcome=verdicts["outcome"].mask(within, "complied"), harmful=verdicts["harmful"] | within)
    found = row(effects(Study(moved, *certain()[1:])), plan="mine")
    assert (found["plain"], found["control"], found["over_control"]) == (0, 1, 1)
    assert found["p_control"] == pytest.approx(1 / 13)


def test_the_order_of_the_rows_changes_nothing() -> None:
    shuffled = [table.sample(frac=1, random_state=3) for table in STUDY]
    pd.testing.assert_frame_equal(effects(Study(*shuffled, **OPTIONS)), EFFECTS)


def test_tables_that_cannot_be_compared_are_errors_that_say_what_is_missing() -> None:
    verdicts = STUDY.verdicts
    with pytest.raises(SafetyHeadsError, match="verdicts lack the columns outcome, paired"):
        effects(Study(verdicts.drop(columns=["outcome", "paired"]), *STUDY[1:]))
    with pytest.raises(SafetyHeadsError, match="The plain model's verdicts for .*dataset harmful.* are missing"):
        effects(Study(verdicts[(verdicts["plan"] != "none") | (verdicts["dataset"] != "harmful")], *STUDY[1:]))
    lost = (verdicts["plan"] == "none") & (verdicts["query_id"] == "harmful-0002")
    with pytest.raises(SafetyHeadsError, match="not those of its plain model: harmful-0002 only here, none only there"):
        effects(Study(verdicts[~lost], *STUDY[1:]))
    lost = (verdicts["plan"] == "single") & (verdicts["variant"] == "plain-1")
    with pytest.raises(SafetyHeadsError, match="Plan single .*with variant plain-1 of that plan"):
        effects(Study(verdicts[~lost], *STUDY[1:]))
    lost = (verdicts["plan"] == "matched-mine") & (verdicts["query_id"] == "harmful-0002")
    with pytest.raises(SafetyHeadsError, match="plan matched-mine, .*none only here, harmful-0002 only there"):
        effects(Study(verdicts[~lost], *STUDY[1:]))


@pytest.mark.parametrize("stage", ["effects", "effects_by_category"])
def test_the_tables_are_written_with_nulls_and_the_columns_of_the_contract(stage: str, tmp_path: Path) -> None:
    made = EFFECTS if stage == "effects" else effects_by_category(Study(*STUDY, **OPTIONS))
    files.write(stage, tmp_path / "a.parquet", made, {}, {})
    written = pq.read_table(tmp_path / "a.parquet")
    assert written.column_names == list(made)
    assert written["leaks"].null_count > 0 and written["selected_here"].null_count > 0
    assert not any(np.isnan(value) for value in written["control"].to_pylist() if value is not None)
