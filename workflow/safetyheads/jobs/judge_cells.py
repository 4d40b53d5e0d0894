"""What judges work on: the answers that a model judges together, labels, and the files that count for a judge."""

import re
from functools import cached_property
from pathlib import Path

from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.cells import Cell, Cells
from safetyheads.jobs.content import file_sum, folder_sum
from safetyheads.jobs.sources import PATHS


class JudgeCells:
    """The inputs and contents of the jobs of judges, for the cells of a configuration."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.config = cells, cells.config

    @cached_property
    def _to_be_judged(self) -> dict[tuple[str, ...], list[Cell]]:
        """For each judge: its cells, and those of each model, data set and template."""
        found: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.cells.all:
            found.setdefault((cell.judge,), []).append(cell)
            found.setdefault((cell.judge, *cell[:3]), []).append(cell)
        return found

    def judged_plans(self) -> dict[tuple[str, str, str, str], list[tuple[str, str]]]:
        """The plans and decodings that a judge's model judges together, by judge, model, data set and template."""
        found: dict[tuple[str, str, str, str], set[tuple[str, str]]] = {}
        for cell in self.cells.all:
            if self.config.judge(cell.judge).needs_model:
                found.setdefault((cell.judge, *cell[:3]), set()).add((cell.plan, cell.decoding))
        return {key: sorted(plans) for key, plans in sorted(found.items())}

    def judged_inputs(self, judge: str, model: str, dataset: str, template: str) -> list[str]:
        """The completions of all plans that a judge's model judges together, because they share most texts.

        Raises SafetyHeadsError if no study has them.
        """
        cells = self._cells_of(judge, model, dataset, template)
        return self.cells.paths("completions", cells)

    def to_judge_inputs(self, judge: str) -> dict[str, list[str] | str]:
        """The `completions` of all cells of a judge, the `queries` that they answer, and labels that are downloaded.

        Raises SafetyHeadsError if no study has the judge.
        """
        cells = self._cells_of(judge)
        named = {"completions": self.cells.paths("completions", cells), "queries": self.cells.paths("datasets", cells)}
        return named | (self.labelled_inputs(judge) if self.config.judge(judge).labels else {})

    def _cells_of(self, judge: str, *of: str) -> list[Cell]:
        if (cells := self._to_be_judged.get((judge, *of))) is None:
            about = f" on the answers of model {of[0]}, data set {of[1]}, template {of[2]}" if of else ""
            raise SafetyHeadsError(
                f"No study has the judge {judge!r}{about}, so there is nothing that it could judge. Add it to the "
                "`judges:` of a study."
            )
        return cells

    def to_judge_content(self, judge: str) -> str:
        """The sums of the file that a judge reads and of its labels, which are to be judged, too."""
        labels = self.labels_content(judge) if self.config.judge(judge).labels else ""
        return f"{self.verdict_content(judge)},{labels}" if labels else self.verdict_content(judge)

    def judge_content(self, name: str) -> str:
        """The sums of the local files of a judge's model; empty where there are none."""
        judge = self.config.judge(name)
        template, adapter = judge.template_file, judge.adapter.path if judge.adapter else None
        parts = [folder_sum(Path(judge.path).expanduser(), f"judge-{name}")] if judge.path else []
        parts += [file_sum(Path(template).expanduser())] if template else []
        parts += [folder_sum(Path(adapter).expanduser(), f"adapter-{name}")] if adapter else []
        return ",".join(parts)

    def verdict_content(self, judge: str) -> str:
        """The sum of the file that a judge of the kind `file` reads; empty for others."""
        known = self.config.judge(judge)
        return file_sum(Path(str(known.path)).expanduser()) if known.kind == "file" else ""

    def labelled_inputs(self, judge: str) -> dict[str, str]:
        """The input files of a job about a judge's labels: its model, and labels that are downloaded, where there are.

        Raises SafetyHeadsError for a judge without labels.
        """
        named = self.config.labels_by(judge)["labels"]
        inputs = {"judge": PATHS["judges"].format(judge=judge)} if self.config.judge(judge).needs_model else {}
        if named in self.config.known("datasets") and (source := self.cells.dataset_source(named)):
            inputs["labels"] = str(source)
        return inputs

    def labels_content(self, judge: str) -> str:
        """The sum of the file with a judge's labels."""
        named = self.config.labels_by(judge)["labels"]
        if named in self.config.known("datasets"):
            return self.cells.dataset_content(named)
        return file_sum(Path(named).expanduser())

    def pattern(self, *, needs_model: bool) -> str:
        """A regular expression for the names of all judges that compute with a model, or of all that do not."""
        names = [name for name in self.config.known("judges") if self.config.judge(name).needs_model == needs_model]
        return "|".join(map(re.escape, names)) or "(?!)"

    def judges(self, *kinds: str) -> list[str]:
        """The names of the studies' judges of these kinds, sorted."""
        return sorted({cell.judge for cell in self.cells.all if self.config.judge(cell.judge).kind in kinds})
