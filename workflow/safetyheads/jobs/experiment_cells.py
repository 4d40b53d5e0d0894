"""What experiments are made from: the files that a study with `experiment:` makes, and those that it reads."""

from safetyheads.experiments import EXPERIMENTS
from safetyheads.jobs.cells import Cells
from safetyheads.jobs.sources import PATHS


class ExperimentCells:
    """The inputs and outputs of the jobs of experiments, for the cells of a configuration."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.config = cells, cells.config

    def paths(self) -> dict[str, list[str]]:
        """The paths of the table, first, and the figure, last, of each study that is an experiment, by its name."""
        stages = [stage for stage in PATHS if stage.startswith("experiments")]
        named = [name for name, study in self.config.studies.items() if study.experiment]
        return {name: [PATHS[stage].format(study=name) for stage in stages] for name in named}

    def inputs(self, study: str) -> dict[str, list[str]]:
        """The input files of an experiment's job, by what they are: of its own study, what its kind reads."""
        own, kind = Cells(self.config, [study]), self.config.studies[study].experiment
        reads, found = EXPERIMENTS[str(kind)].reads, dict[str, list[str]]()
        if "scores" in reads:
            found |= {name: paths for name, paths in own.score_paths().items() if paths}
        if "utility" in reads:
            found["utility"] = own.paths("utility", own.choosing)
        if "maps" in reads:
            found["verdicts"] = own.paths("verdicts", own.maps())
        if "completions" in reads:
            found["completions"] = own.paths("completions")
        if "rates" in reads:
            known = [*own.all, *(cell.attributed for cell in own.all)]
            found |= {"verdicts": own.paths("verdicts"), "datasets": own.paths("datasets", known)}
            found["completions"] = own.paths("completions", own.with_effects())
        return found

    def beside_the_paper(self) -> dict[str, list[str]]:
        """The input files of the job that puts the paper's numbers beside ours: rates, maps, and what took hours."""
        maps = [PATHS["maps_by_head"]] if self.cells.maps() else []
        single = [cell for cell in self.cells.all if cell.plan == "single"]
        sahara = self.cells.paths("sahara", self.cells.scored("sahara"))
        found = {"rates": [PATHS["rates"]], "maps": maps, "sahara": sahara}
        return found | {"completions": self.cells.paths("completions", single)}
