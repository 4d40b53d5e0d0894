"""What was found when each model was checked on its device, before it was measured."""

from collections.abc import Mapping
from typing import Any

from safetyheads.report.data import ReportData
from safetyheads.report.tables import Table


def checks_table(data: ReportData) -> Table:
    """A row for each model and check: what must hold, whether it does, how far off it is, and what is allowed.

    A note explains warnings, where there are any.
    """
    rows, warned = [], []
    for model in data.measured("models"):
        checked = data.checks.get(model, {})
        record = checked.get("record", {})
        where = ", ".join(str(record[key]) for key in ("dtype", "attention", "device") if key in record)
        for check in checked.get("checks", ()):
            rows.append([model, where, str(check["check"]), str(check["result"]), *_numbers(check)])
            if check["result"] == "warned":
                warned.append(f"{model}: {check['check']} ({check['where']})")
    columns = ["model", "computed in", "what must hold", "result", "largest difference", "allowed"]
    return Table("Checks of models on their devices", columns, rows, frozenset({4, 5}), _note(rows, warned))


def _numbers(check: Mapping[str, Any]) -> tuple[str, str]:
    """The difference and what is allowed, for a table."""
    if check["difference"] is None:
        return "–", "–"
    most = check["bound"] == "at most"
    difference = f"{check['difference']:.1e}" if check["difference"] else "0"
    bound = f"{check['tolerance']:.0e}"
    return (difference, bound) if most else (f"at least {difference}", f"more than {bound}")


def _note(rows: list[list[str]], warned: list[str]) -> str:
    if not rows:
        return ""
    words = (
        "Tried before anything was measured, on random tokens: how far vectors are from each other, as a share of the "
        "length of one. A model that fails is not measured."
    )
    if not warned:
        return words
    return (
        f"{words} Warnings: {'; '.join(warned)}. In 16 bits this may be rounding, which sends a token to other "
        "experts, or a kernel that is wrong: compare with dtype float32, or with attention eager."
    )
