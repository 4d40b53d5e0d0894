"""The page's table of what was found when models were checked on their devices."""

from typing import Any

import pandas as pd

from safetyheads.report import ReportData
from safetyheads.report.checks import checks_table


def check(name: str, result: str = "passed", **more: Any) -> dict[str, Any]:
    numbers = {"difference": 2.5e-7, "typical": 1e-7, "tolerance": 1e-4, "bound": "at most", "where": "layer 1"}
    if result == "not applicable":
        numbers |= {"difference": None, "typical": None, "tolerance": None}
    return {"check": name, "result": result, **numbers, **more}


def page(*checks: dict[str, Any], **record: str) -> ReportData:
    record = {"dtype": "float32", "attention": "sdpa", "device": "cpu"} | record
    return ReportData(
        title="x",
        studies={},
        models={},
        rates=pd.DataFrame({"model": ["m", "unchecked"]}),
        checks={"m": {"model": "m", "checks": list(checks), "record": record}, "unmeasured": {"checks": [check("x")]}},
    )


def test_each_check_of_a_measured_model_has_a_row_with_its_numbers() -> None:
    something = check("something changes", difference=0.31, bound="more than", tolerance=1e-6)
    table = checks_table(page(check("a"), check("b", difference=0.0), something, check("c", "not applicable")))
    where = "float32, sdpa, cpu"
    assert table.rows == [
        ["m", where, "a", "passed", "2.5e-07", "1e-04"],
        ["m", where, "b", "passed", "0", "1e-04"],
        ["m", where, "something changes", "passed", "at least 3.1e-01", "more than 1e-06"],
        ["m", where, "c", "not applicable", "–", "–"],
    ]
    assert "Warnings" not in table.note


def test_a_warning_is_named_below_the_table() -> None:
    warned = check("left padding changes nothing", "warned", difference=0.07, tolerance=0.05, where="6 tokens")
    table = checks_table(page(check("a"), warned, dtype="bfloat16"))
    assert table.rows[1] == ["m", "bfloat16, sdpa, cpu", "left padding changes nothing", "warned", "7.0e-02", "5e-02"]
    assert "Warnings: m: left padding changes nothing (6 tokens). In 16 bits this may be rounding" in table.note


def test_a_page_without_checks_says_nothing_of_them() -> None:
    table = checks_table(ReportData(title="x", studies={}, models={}, rates=pd.DataFrame({"model": ["m"]})))
    assert table.rows == [] and table.note == ""
