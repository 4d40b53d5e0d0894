"""The figures of the page. Each is a function from a table to the text of an SVG, which can also be used by itself.

A table has the columns of its artefact (ships, sahara or rates), and the rows that belong into one figure: those of one
model, data set and template, for example. Plans and ablations are drawn in the order of the rows. `label` is what a
screen reader says. `prefix` is put before the ids of a figure, so that several figures can stand on one page.
"""

from safetyheads.report.figures.asr import asr_by_n, asr_by_plan, best_single, lines
from safetyheads.report.figures.doses import dose_curves
from safetyheads.report.figures.judges import corrected_strip, kappa_matrix
from safetyheads.report.figures.maps import change_map, score_map, shift_map, ships_map, single_map
from safetyheads.report.figures.named import named_heads
from safetyheads.report.figures.outcomes import attributed, control_strip, has_outcomes, noise_bars, outcome_bars
from safetyheads.report.figures.steps import ranked, search_steps

__all__ = [
    "asr_by_n",
    "asr_by_plan",
    "attributed",
    "best_single",
    "change_map",
    "control_strip",
    "corrected_strip",
    "dose_curves",
    "has_outcomes",
    "kappa_matrix",
    "lines",
    "named_heads",
    "noise_bars",
    "outcome_bars",
    "ranked",
    "score_map",
    "search_steps",
    "shift_map",
    "ships_map",
    "single_map",
]
