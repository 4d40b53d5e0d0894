"""What is said before a run: how many hours the studies take, and which rates will be gone."""

from pathlib import Path

from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import Config
from safetyheads.costs.cost_table import announcement, planned
from safetyheads.costs.job_costs import Estimates
from safetyheads.jobs.cells import Cell, Cells

SHOWN = 5


def hours(config: Config, cells: Cells, *, on_gpu: bool) -> str | None:
    """The table of hours by model and stage; nothing where it is minutes."""
    estimates = Estimates(config, gpu=on_gpu)
    ships, sahara = ({cell[:4] for cell in cells.scored(method)} for method in ("ships", "sahara"))
    completions = {cell[:6] for cell in cells.all}
    jobs = planned(
        estimates,
        [key[:3] for key in sorted(ships)],
        [key[:3] for key in sorted(sahara)],
        [(*key[:3], *key[4:]) for key in sorted(completions)],
    )
    return announcement(estimates, jobs)


def rates_to_be_gone(cells: Cells, results: Path) -> str | None:
    """Which cells of the last rates.parquet the configuration does not have: the next one will be without them.

    That happens where two configurations share a folder of results. Their other files stay.
    """
    path = results / STAGES["rates"].path
    if not path.is_file():
        return None
    from safetyheads.artifacts.files import read

    there = {Cell(*row) for row in read(path, list(Cell._fields)).drop_duplicates().itertuples(index=False)}
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
