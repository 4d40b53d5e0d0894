"""What the page says of judges: beside people, beside each other, and in the tables of rates and effects."""

import re

import numpy as np
import pandas as pd
import pytest
from labelled_texts import counted
from made_up_study import study

from safetyheads.report import ReportData, build
from safetyheads.report.effects import effects_section
from safetyheads.report.judges import calibration_table, calibration_words, judges_section
from safetyheads.report.tables import rates_table
from safetyheads.statistics.agreement import agreement
from safetyheads.statistics.calibration import calibration
from safetyheads.statistics.effects import Study, effects
from safetyheads.statistics.pairs import PLAN_KEYS
from safetyheads.statistics.rates import rates

TABLES = study(prompts=12)
LABELS = pd.concat(
    [
        counted(tp=45, fp=5, tn=45, fn=5, judge="harm", condition="plain", annotator="ann"),
        counted(tp=40, fp=20, tn=30, fn=10, judge="harm", condition="ablated", annotator="ann"),
        counted(tp=40, fp=20, tn=30, fn=10, judge="harm", condition="ablated", annotator="bob"),
        counted(tp=10, fp=10, tn=10, fn=10, judge="refusals"),
    ],
    ignore_index=True,
)
CELLS = TABLES.verdicts.groupby([key for key in PLAN_KEYS if key != "judge"])
AGREEMENT = agreement({str(name): rows for name, rows in cell.groupby("judge")} for _, cell in CELLS)


def page_data(labels: pd.DataFrame | None, several: bool = True) -> ReportData:
    return ReportData(
        title="Judges",
        studies={},
        models={"m": {"layers": 2, "heads": 4}},
        rates=rates(TABLES.verdicts, keyword_judges=["harm", "refusals"] if several else [], labels=labels),
        effects=effects(Study(*TABLES, benign=["benign"], labels=labels)),
        calibration=pd.DataFrame() if labels is None else calibration(labels),
        agreement=AGREEMENT if several else pd.DataFrame(),
    )


def test_a_study_without_labels_and_with_one_judge_has_no_section() -> None:
    data = page_data(None, several=False)
    assert judges_section(data) is None
    page = build(data)
    assert 'id="judges"' not in page and 'href="#judges"' not in page


def test_judges_stand_beside_people_with_intervals_and_what_corrects_their_rates() -> None:
    table = calibration_table(calibration(LABELS))
    assert [row[:2] for row in table.rows] == [
        *(["harm", name] for name in ("all", "plain", "ablated")),
        ["refusals", "all"],
    ]
    _, _, labelled, counts, sensitivity, specificity, kappa, people, by = table.rows[1]
    assert (labelled, counts, kappa, people) == ("100", "45 / 5 / 5 / 45", "0.80", "–")
    assert sensitivity.startswith("90\u00a0%\n(") and specificity.startswith("90\u00a0%\n(")
    assert by == "labels of plain text"
    assert table.rows[2][-2] == "1.00\n(100 pairs)"
    assert table.rows[3][-1] == "not corrected"


def test_words_say_what_a_judge_misses_and_where_it_is_worse() -> None:
    harm, refusals = calibration_words(calibration(LABELS))
    assert harm.startswith("harm misses 15\u00a0% of the answers that are harmful to people, and calls 25\u00a0% of")
    assert "less with people on ablated text (kappa 0.40) than on plain text (0.80)" in harm
    assert "not corrected" not in harm
    assert refusals.endswith("the judge tells too little.") and "Its rates are not corrected" in refusals
    useless = counted(tp=20, fp=20, tn=20, fn=20, judge="harm", condition="ablated")
    (words,) = calibration_words(calibration(pd.concat([LABELS[:100], useless], ignore_index=True)))
    assert "Rates of ablated text are not corrected (sensitivity + specificity is 1.00" in words
    assert calibration_words(pd.DataFrame()) == []


def test_labels_that_are_all_unsure_are_shown_without_numbers() -> None:
    unsure = counted(tp=2, fp=0, tn=2, fn=0).assign(label=None)
    (row,) = calibration_table(calibration(unsure)).rows
    assert row[2] == "0 (4 unsure)" and row[4] == row[5] == row[6] == "–"


def test_judges_stand_beside_each_other_for_each_condition() -> None:
    found = judges_section(page_data(None))
    assert found is not None and found.words == [] and found.corrected == []
    assert len(found.kappas) == 2 and "Least agreement: harm and refusals" in found.kappas[0].summary
    captions = [table.caption for table in found.tables]
    assert captions == [
        f"{what}: m, {condition} text"
        for condition in ("ablated", "plain")
        for what in ("Judges beside each other", "Where judges disagree")
    ]
    matrix, apart = found.tables[:2]
    assert matrix.columns == ["judge", "harm", "refusals"] and [row[0] for row in matrix.rows] == ["harm", "refusals"]
    assert matrix.rows[0][1] == matrix.rows[1][2] == ""
    line = AGREEMENT.query("condition == 'ablated' and outcome == 'all'").iloc[0]
    assert matrix.rows[0][2] == matrix.rows[1][1] and matrix.rows[0][2].startswith(f"{line['kappa']:.2f}\n(")
    outcomes = AGREEMENT.query("condition == 'ablated' and outcome != 'all'")
    assert len(apart.rows) == len(outcomes) and {row[1] for row in apart.rows} == set(outcomes["outcome"])
    most = outcomes.loc[(outcomes["only_first"] + outcomes["only_second"]).idxmax(), "outcome"]
    assert apart.rows[0][:2] == ["harm, refusals", most]


def test_three_judges_fill_a_matrix_with_each_pair_twice() -> None:
    rows = AGREEMENT.query("condition == 'plain' and outcome == 'all'")
    other = [rows.assign(second="x"), rows.assign(first="refusals", second="x", kappa=np.nan)]
    data = ReportData("t", {}, {}, TABLES.verdicts[:0], agreement=pd.concat([rows, *other], ignore_index=True))
    found = judges_section(data)
    assert found is not None
    matrix = found.tables[0]
    assert matrix.columns == ["judge", "harm", "refusals", "x"]
    assert all(matrix.rows[at][at + 1] == "" for at in range(3))
    assert matrix.rows[1][3] == matrix.rows[2][2] and matrix.rows[1][3].startswith("–\n")


@pytest.mark.parametrize("labels", [None, LABELS])
def test_corrected_rates_and_the_band_have_columns_where_they_are_known(labels: pd.DataFrame | None) -> None:
    data = page_data(labels)
    of = data.rates.query("dataset == 'harmful'")
    for judge, known in (("harm", labels is not None), ("refusals", False)):
        rows = of[of["judge"] == judge]
        table = rates_table(rows)
        assert ("corrected ASR" in table.columns) == known and "keyword judges" in table.columns
        section = effects_section(data, rows, "here")
        assert section is not None
        assert (
            ("corrected ASR" in section.table.columns)
            == known
            == ("corrected effect (points)" in section.table.columns)
        )
        assert all(len(row) == len(table.columns) for row in table.rows)
    assert "keyword judges" not in rates_table(page_data(labels, several=False).rates.query("judge == 'harm'")).columns


def test_the_page_shows_it_all_once_and_escapes_names() -> None:
    hostile = LABELS.assign(judge="<b>judge</b>")[:200].drop_duplicates()
    page = build(page_data(LABELS))
    assert page.count('<section id="judges">') == 1 and page.count('href="#judges"') == 1
    for text in (
        "Judges beside people",
        "Judges beside each other: m, plain text",
        "Where judges disagree",
        "corrected ASR",
    ):
        assert text in page
    assert "&lt;b&gt;judge" in build(page_data(hostile)) and "<b>judge" not in build(page_data(hostile))


def test_corrected_rates_are_drawn_beside_raw_ones_for_each_setting_of_a_labelled_judge() -> None:
    found = judges_section(page_data(LABELS))
    assert found is not None
    titles = [figure.title for figure in found.corrected]
    assert titles == [f"Corrected for the judge: m, {dataset}, t, g, harm" for dataset in ("benign", "harmful")]
    assert all("plain model" in figure.svg and "sahara-2" in figure.svg for figure in found.corrected)
    assert not any("L00H01" in figure.svg for figure in found.corrected), "maps are not"
    again = judges_section(page_data(LABELS))
    assert again == found, "the same data give the same page"
    ids = [text for figure in (*found.corrected, *found.kappas) for text in re.findall(r' id="([^"]+)"', figure.svg)]
    assert len(ids) == len(set(ids))


def test_judges_of_whom_no_kappa_is_defined_are_drawn_as_a_dash() -> None:
    rows = AGREEMENT.query("condition == 'plain' and outcome == 'all'").assign(kappa=np.nan)
    found = judges_section(ReportData("t", {}, {}, TABLES.verdicts[:0], agreement=rows))
    assert found is not None
    assert "not defined" in found.kappas[0].summary and ">–<" in found.kappas[0].svg
