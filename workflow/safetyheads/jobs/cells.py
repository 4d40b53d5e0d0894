"""The cells of the studies, and the files that they need: what a configuration asks for, as paths."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from safetyheads.artifacts.schemas import STAGES
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.plans import PLAIN, Plan, parse_plan

PATHS = {stage: f"<results>/{known.path}" for stage, known in STAGES.items()}
"""Where the artefacts of each stage lie, as rules write it."""

SHARD = PATHS["completions"].replace("{decoding}.", ".{decoding}.{shard}-of-{shards}.")


MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""In the folder of a local model; its other files do not matter."""


class Cell(NamedTuple):
    """One cell of a study, by the keys of its verdicts' path."""

    model: str
    dataset: str
    template: str
    ablation: str
    plan: str
    decoding: str
    judge: str

    @property
    def attributed(self) -> "Cell":
        """The cell with the data set that its plan's heads are chosen on."""
        return self._replace(dataset=parse_plan(self.plan).source or self.dataset)


class Cells:
    """All cells of all studies of a configuration, with the plain model's, in a fixed order."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @cached_property
    def all(self) -> list[Cell]:
        return sorted(set(self._found()))

    def _found(self) -> Iterator[Cell]:
        for study in self.config.studies.values():
            for ablation, plan in product(study.ablations, ["none", *study.plans]):
                own = PLAIN if plan == "none" else ablation
                shared = product(study.models, study.datasets, study.templates)
                for (model, dataset, template), decoding, judge in product(shared, study.decodings, study.judges):
                    yield Cell(model, dataset, template, own, plan, decoding, judge)

    def scored(self, method: str) -> list[Cell]:
        """The cells whose plans need the scores of `method` (`ships`, `sahara`), with the data set of these scores."""
        return [cell.attributed for cell in self.all if parse_plan(cell.plan).kind == method]

    def paths(self, stage: str, cells: Iterable[Cell] | None = None) -> list[str]:
        """The files of a stage for these cells, or for all, each once."""
        keyed = self.all if cells is None else cells
        return sorted({PATHS[stage].format(**cell._asdict()) for cell in keyed})

    def plan_of(self, plan: str, ablation: str) -> Plan:
        """What a plan's name means under an ablation. Raises SafetyHeadsError for a misplaced `none`."""
        found = parse_plan(plan)
        if (found.kind == "none") != (ablation == PLAIN):
            raise SafetyHeadsError(f"Plan {plan!r} under {ablation!r}: the plain model is `{PLAIN}/none`.")
        return found

    def plan_settings(self, plan: str, ablation: str) -> dict[str, Any]:
        """What the heads of a plan follow from, besides scores: those of a head set, or how random ones are drawn."""
        found = self.plan_of(plan, ablation)
        if found.kind == "random":
            return {"random": self.config.random.plain()}
        if found.kind != "head_set":
            return {}
        known = self.config.head_sets
        if plan not in known:
            raise SafetyHeadsError(f"{plan!r} is neither a plan nor in head_sets.{nearest(plan, known)}")
        return {"heads": list(known[plan])}

    def completion_inputs(self, plan: str, ablation: str) -> dict[str, str]:
        """The files that completions are made from, with the path's keys to be filled in."""
        found = self.plan_of(plan, ablation)
        inputs = {"model": PATHS["models"], "prompts": PATHS["prompts"]}
        if found.kind in ("ships", "sahara"):
            inputs[found.kind] = PATHS[found.kind].replace("{dataset}", found.source or "{dataset}")
        return inputs

    def dataset_source(self, name: str) -> str | list[str]:
        """The file of a data set: the user's own, or the download; none for the demo's."""
        dataset = self.config.dataset(name)
        return [] if dataset.demo else dataset.path or f"<results>/datasets/.{name}.download"

    def model_source(self, name: str) -> str | list[str]:
        """The files of a local model, the folder of a demo, the descriptions of both that a derived model is made of.

        Nothing for one of the hub, whose revision says it all.
        """
        model = self.config.model(name)
        if sources := self.config.sources(name):
            return [PATHS["models"].format(model=source) for source in sources]
        if model.demo:
            return f"<results>/models/{name}"
        files = Path(model.path).glob("*") if model.path else []
        return sorted(str(file) for file in files if file.suffix in MODEL_FILES)
