"""The corrected columns of rates and effects, and the band of the keyword judges."""

import numpy as np
import pandas as pd
import pytest
from labelled_texts import counted
from made_up_study import cell, study

from safetyheads.statistics.correction import CORRECTED, Corrections
from safetyheads.statistics.effects import Study, effects, effects_by_category
from safetyheads.statistics.pairs import CELL_KEYS, PLAN_KEYS
from safetyheads.statistics.rates import rates

TABLES = study(prompts=24, samples=2)
ONE_SAMPLE = study(prompts=24, samples=1)
LABELS = pd.concat(
    [
        counted(tp=45, fp=5, tn=45, fn=5, judge="harm", condition="plain"),
        counted(tp=40, fp=20, tn=30, fn=10, judge="harm", condition="ablated"),
    ],
    ignore_index=True,
)
"""Sensitivity and specificity of the judge `harm`: 0.9 and 0.9 on plain text, 0.8 and 0.6 on ablated text."""
EFFECT = ["corrected_effect", "corrected_effect_low", "corrected_effect_high"]


def test_without_labels_all_corrected_columns_are_null_and_the_others_as_with_labels() -> None:
    without, corrected = rates(TABLES.verdicts), rates(TABLES.verdicts, labels=LABELS)
    assert without[[*CORRECTED, "corrected_by", "asr_lowest", "asr_highest"]].isna().all(axis=None)
    others = [name for name in without if name not in (*CORRECTED, "corrected_by")]
    pd.testing.assert_frame_equal(without[others], corrected[others])
    table = effects(Study(*TABLES))
    assert table[[*CORRECTED, *EFFECT, "corrected_by"]].isna().all(axis=None)
    labelled = effects(Study(*TABLES, labels=LABELS))
    same = [name for name in table if "corrected" not in name]
    pd.testing.assert_frame_equal(table[same], labelled[same])


def test_rates_of_the_labelled_judge_are_corrected_by_the_errors_on_text_of_their_condition() -> None:
    found = rates(TABLES.verdicts, labels=LABELS)
    assert found[found["judge"] == "refusals"][[*CORRECTED, "corrected_by"]].isna().all(axis=None)
    own = found[found["judge"] == "harm"]
    plain = own["ablation"] == "plain"
    assert set(own["corrected_by"][plain]) == {"plain"} and set(own["corrected_by"][~plain]) == {"ablated"}
    expected = np.where(plain, (own["asr"] - 0.1) / 0.8, (own["asr"] - 0.4) / 0.4).clip(0, 1)
    assert own["corrected_asr"].to_numpy() == pytest.approx(expected)
    assert (own["corrected_low"] <= own["corrected_asr"]).all() and (
        own["corrected_asr"] <= own["corrected_high"]
    ).all()
    assert (own["corrected_low"] < own["corrected_high"]).all()


def test_a_cell_of_one_sample_is_corrected_as_so_many_prompts() -> None:
    found = rates(ONE_SAMPLE.verdicts, labels=LABELS)
    own = found[found["judge"] == "harm"]
    for condition, rows in own.groupby(np.where(own["ablation"] == "plain", "plain", "ablated")):
        expected = Corrections(LABELS).rates("harm", str(condition), rows["asr"].to_numpy(), rows["n"].to_numpy())
        assert expected is not None
        assert rows["corrected_low"].to_numpy() == pytest.approx(expected.low)
        assert rows["corrected_high"].to_numpy() == pytest.approx(expected.high)


def test_samples_that_differ_narrow_the_corrected_interval() -> None:
    found = rates(TABLES.verdicts, labels=LABELS)
    own = found[(found["judge"] == "harm") & (found["ablation"] == "plain")]
    as_one = Corrections(LABELS).rates("harm", "plain", own["asr"].to_numpy(), own["n"].to_numpy())
    assert as_one is not None
    width = (own["corrected_high"] - own["corrected_low"]).to_numpy()
    assert (width < as_one.high - as_one.low).any()


def test_effects_are_corrected_with_the_rates_intervals_and_less_the_corrected_plain_rate() -> None:
    of_rates = rates(TABLES.verdicts, labels=LABELS)
    found = effects(Study(*TABLES, labels=LABELS))
    assert found[found["judge"] == "refusals"][[*CORRECTED, *EFFECT]].isna().all(axis=None)
    own = cell(found, judge="harm", dataset="harmful")
    assert len(own) == 4 and set(own["corrected_by"]) == {"ablated"}
    joined = own.merge(of_rates[of_rates["variant"] == of_rates["plan"]], on=PLAN_KEYS, suffixes=("", "_of_rates"))
    assert len(joined) == len(own)
    for name in CORRECTED:
        assert joined[name].to_numpy() == pytest.approx(joined[f"{name}_of_rates"].to_numpy()), name
    before = ((own["plain_asr"] - 0.1) / 0.8).clip(0, 1)
    assert own["corrected_effect"].to_numpy() == pytest.approx(own["corrected_asr"] - before)
    assert (own["corrected_effect_low"] < own["corrected_effect"]).all()
    assert (own["corrected_effect"] < own["corrected_effect_high"]).all()
    by_category = effects_by_category(Study(*TABLES, labels=LABELS))
    assert cell(by_category, judge="harm")[[*CORRECTED, *EFFECT]].notna().all(axis=None)


def test_a_judge_that_is_useless_on_ablated_text_has_corrected_plain_rates_alone() -> None:
    useless = counted(tp=20, fp=20, tn=20, fn=20, judge="harm", condition="ablated")
    labels = pd.concat([LABELS[LABELS["condition"] == "plain"], useless], ignore_index=True)
    found = cell(rates(TABLES.verdicts, labels=labels), judge="harm")
    assert found["corrected_asr"].notna().tolist() == (found["ablation"] == "plain").tolist()
    assert effects(Study(*TABLES, labels=labels))[[*CORRECTED, *EFFECT, "corrected_by"]].isna().all(axis=None)


def test_a_judge_that_is_useless_on_plain_text_has_no_corrected_effect() -> None:
    useless = counted(tp=20, fp=20, tn=20, fn=20, judge="harm", condition="plain")
    labels = pd.concat([LABELS[LABELS["condition"] == "ablated"], useless], ignore_index=True)
    own = cell(effects(Study(*TABLES, labels=labels)), judge="harm")
    assert own[list(CORRECTED)].notna().all(axis=None) and own[EFFECT].isna().all(axis=None)


def test_the_band_is_that_of_the_keyword_judges_on_the_same_answers() -> None:
    found = rates(TABLES.verdicts, keyword_judges=["harm", "refusals", "unused"])
    others = [key for key in CELL_KEYS if key != "judge"]
    by_judge = found.pivot(index=others, columns="judge", values="asr")
    joined = found.merge(by_judge.reset_index(), on=others)
    assert (joined["asr_lowest"] == joined[["harm", "refusals"]].min(axis=1)).all()
    assert (joined["asr_highest"] == joined[["harm", "refusals"]].max(axis=1)).all()
    one = rates(TABLES.verdicts, keyword_judges=["refusals"])
    joined = one.merge(by_judge.reset_index(), on=others)
    assert (joined["asr_lowest"] == joined["refusals"]).all() and (joined["asr_highest"] == joined["refusals"]).all()
    assert rates(TABLES.verdicts)["asr_lowest"].isna().all()
