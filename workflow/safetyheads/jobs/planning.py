"""What a run says on the terminal before it starts: how long the studies take, and which rates would be lost."""

from pathlib import Path

from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import Config
from safetyheads.costs.cost_table import announcement, planned
from safetyheads.costs.job_costs import Estimates
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import Cell, Cells
from safetyheads.jobs.judge_cells import JudgeCells
from safetyheads.methods import SCORES

SHOWN = 5
"""The most cells that a message lists."""


def hours(config: Config, cells: Cells, *, on_gpu: bool) -> str | None:
    """The table of estimated hours by model and stage; None where they take minutes only."""
    estimates = Estimates(config, gpu=on_gpu)
    scores = {name: [cell[:3] for cell in sorted({cell[:4] for cell in cells.scored(name)})] for name in SCORES}
    scores["attention"] = sorted({cell[:3] for _, cell in cells.attacked()})
    completions = {cell[:6] for cell in cells.all}
    jobs = planned(
        estimates,
        scores,
        [(*key[:3], *key[4:]) for key in sorted(completions)],
        JudgeCells(cells).judged_plans(),
    )
    return announcement(estimates, jobs)


def rates_to_be_gone(cells: Cells, results: Path) -> str | None:
    """A warning that lists cells whose rates the next rates.parquet will no longer have; None if there are none.

    That happens where two configurations share a folder of results: rates.parquet and the page hold the cells of the
    configuration that ran last. The completions and verdicts of the other one stay.
    """
    path = results / STAGES["rates"].path
    if not path.is_file():
        return None
    from safetyheads.artifacts.files import read

    try:
        rows = read(path, list(Cell._fields)).drop_duplicates()
    except (SafetyHeadsError, ValueError):
        return None  # what cannot be read is no loss
    there = {Cell(*map(str, row)) for row in rows.itertuples(index=False)}
    gone = sorted(there - set(cells.all))
    if not gone:
        return None
    listed = [f"  {'/'.join(cell)}" for cell in gone[:SHOWN]]
    more = [f"  and {len(gone) - SHOWN} more"] if len(gone) > SHOWN else []
    return "\n".join(
        [
            f"{path} has rates of {len(gone)} cells that this configuration does not have. Once it is made anew they "
            "are no longer in it, nor on the page; their completions and verdicts stay:",
            *listed,
            *more,
            "To keep them, give this configuration another `results:` folder, or put both studies into one file.",
        ]
    )
