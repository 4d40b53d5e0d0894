"""The report: one self-contained HTML page on what a run found.

    >>> page = build(ReportData(title="Demo", studies={}, models={}, rates=rates))

The page loads nothing from elsewhere, and its content policy forbids scripts. All text is escaped. Neither queries nor
completions are shown, because they may be harmful. The same data give the same page. `figures` can be used by itself.
Uses `judges`, `statistics`, `demo` (to know what planted heads must do) and the vocabulary, and does not import torch.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from safetyheads.report import broken_text, figures, meanings, tables
from safetyheads.report.checks import checks_table
from safetyheads.report.data import TABLES, Experiment, ReportData
from safetyheads.report.experiments import experiments_section
from safetyheads.report.figures.drawing import percent
from safetyheads.report.headlines import headlines
from safetyheads.report.judges import judges_section
from safetyheads.report.planted import planted_checks
from safetyheads.report.sections import model_sections

__all__ = ["TABLES", "Experiment", "ReportData", "build", "figures"]

_FOLDER = Path(__file__).parent
_STUDY_KEYS = ("models", "datasets", "templates", "ablations", "plans", "decodings", "judges")


def build(data: ReportData) -> str:
    """The HTML text of the page. Raises SafetyHeadsError for the name of a plan that is malformed."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    checked = [(model, data.planted(model), planted_checks(data, model)) for model in data.measured("models")]
    return environment.get_template("template.html.j2").render(
        data=data,
        css=Markup((_FOLDER / "page.css").read_text(encoding="utf-8")),
        study_keys=_STUDY_KEYS,
        headlines=headlines(data),
        run=[
            tables.models(data),
            tables.datasets(data),
            *meanings.settings(data),
            tables.conditions(data),
            checks_table(data),
        ],
        broken_text=broken_text.rule(),
        checked=[(model, planted, checks) for model, planted, checks in checked if checks],
        experiments=experiments_section(data),
        judges=judges_section(data),
        models=model_sections(data),
    )
