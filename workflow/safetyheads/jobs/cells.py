"""The cells that the studies of a configuration ask for, and the paths of the files that they need.

A study lists models, data sets, plans and so on; each combination of them is a cell. Rules ask this module for the
paths of all cells, and for the inputs of one job.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from safetyheads.config.load import Config
from safetyheads.config.sections import Study
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.experiments import EXPERIMENTS
from safetyheads.jobs.sources import PATHS, Sources
from safetyheads.methods import METHODS, OWN_STAGES, SCORES
from safetyheads.plans import PLAIN, Plan, parse_plan

CHECKED = "<results>/checks/{model}/{dtype}-{attention}.json"
"""Path of the checks of a model in one number format and with one attention. `checks/{model}.json` is a copy of one."""

SHARD = PATHS["completions"].replace("{decoding}.", ".{decoding}.{shard}-of-{shards}.")
"""Path of one shard of a cell's completions."""


def scores_path(scores: str) -> str:
    """The path of scores by their name (`methods.Method.scores`), with the other keys still in braces."""
    return PATHS[scores] if scores in OWN_STAGES else PATHS["scores"].replace("{method}", scores)


class Cell(NamedTuple):
    """One cell of a study. Its fields are the keys in the path of its verdicts, in the same order."""

    model: str
    dataset: str
    template: str
    ablation: str
    plan: str
    decoding: str
    judge: str

    @property
    def attributed(self) -> "Cell":
        """This cell, but with the data set on which the heads of its plan are chosen.

        For example, plan `sahara-3@harmful` on the data set `benign` takes its heads from scores of `harmful`, so the
        data set becomes `harmful`. Where a plan names no other data set, the cell stays as it is.
        """
        return self._replace(dataset=parse_plan(self.plan).source or self.dataset)


def _generates(study: Study) -> bool:
    """Whether text is generated for a study, as for all but experiments of another kind."""
    return study.experiment is None or EXPERIMENTS[study.experiment].generates


class Cells(Sources):
    """All cells of all studies of a configuration, in a fixed order.

    The cells of the plain model are always among them, because every rate is compared with the plain model's. On benign
    data sets plans are measured whose heads were chosen on the study's other data sets (`Plan.on_benign`). With
    `studies`, only the cells of these studies count.
    """

    def __init__(self, config: Config, studies: Collection[str] | None = None) -> None:
        super().__init__(config)
        self.studies = {name: study for name, study in config.studies.items() if studies is None or name in studies}

    @cached_property
    def all(self) -> list[Cell]:
        """Every cell that is measured, once, also where several studies have it; sorted by the cells' fields."""
        return sorted(set(self._found([study for study in self.studies.values() if _generates(study)])))

    @cached_property
    def choosing(self) -> list[Cell]:
        """The same and the cells of experiments for which no text is generated."""
        return sorted({*self.all, *self._found([study for study in self.studies.values() if not _generates(study)])})

    def _found(self, studies: Iterable[Study]) -> Iterator[Cell]:
        for study in studies:
            for dataset, ablation in product(study.datasets, study.ablations):
                for plan in ["none", *self.config.plans(study, dataset)]:
                    own = PLAIN if plan == "none" else ablation
                    shared = product(study.models, study.templates, study.decodings, study.judges)
                    for model, template, decoding, judge in shared:
                        yield Cell(model, dataset, template, own, plan, decoding, judge)

    def scored(self, scores: str) -> list[Cell]:
        """The cells whose plans choose their heads by these scores (`Method.scores`).

        Each has the data set that these scores are computed on (see `Cell.attributed`). For plans that compare scores
        with others there are also the cells of these others.
        """
        found = [cell.attributed for cell in self.choosing if parse_plan(cell.plan).scores == scores]
        found += [cell for _, cell in self.attacked()] if scores == "ships" else []
        return found + [self.subtracted(cell) for cell in found if parse_plan(cell.plan).contrasted]

    def attacked(self) -> list[tuple[tuple[str, ...], Cell]]:
        """What is compared between an attack template and a clean one, with the cells of both templates.

        A comparison is named as `statistics.attacks.Attacked` has it: model, data set, ablation, clean, attack.
        A comparison is made where a study has both templates, for its models, ablations and the data sets on which
        heads are chosen.
        """
        found = []
        for study in self.studies.values():
            for attack, clean in self.config.attribution.attacks.items():
                if not {attack, clean} <= set(study.templates):
                    continue
                harmful = [name for name in study.datasets if not self.config.dataset(name).benign]
                for model, dataset, ablation in product(study.models, harmful, study.ablations):
                    one = (model, dataset, ablation, clean, attack)
                    cell = Cell(model, dataset, clean, ablation, "", "", "")
                    found += [(one, cell), (one, cell._replace(template=attack))]
        return sorted(set(found))

    def score_paths(self) -> dict[str, list[str]]:
        """The paths of all scores that plans need, by the name of the scores, sorted and each once."""
        return {
            scores: sorted({scores_path(scores).format(**cell._asdict()) for cell in self.scored(scores)})
            for scores in SCORES
        }

    def with_scores(self) -> list[Cell]:
        """The cells whose scores plans need."""
        return [cell for scores in SCORES for cell in self.scored(scores)]

    def subtracted(self, cell: Cell) -> Cell:
        """The cell whose scores are subtracted from those of `cell`, for a plan that compares scores.

        It has another data set, of benign queries, or another model. Raises SafetyHeadsError if there is none.
        """
        model, dataset = self.config.subtracted(cell.model, cell.dataset, self.config.named)
        return cell._replace(model=model, dataset=dataset)

    def contrasts(self) -> dict[tuple[str, str], tuple[str, str]]:
        """For each model and data set on which heads are chosen by contrast: those whose scores are subtracted."""
        of = [cell.attributed for cell in self.choosing if parse_plan(cell.plan).contrasted]
        return {cell[:2]: self.subtracted(cell)[:2] for cell in of}

    def models(self) -> list[str]:
        """The models of all cells, sorted."""
        return sorted({cell.model for cell in self.choosing})

    def methods(self) -> dict[str, dict[str, Any]]:
        """The lines of the table of methods that plans go by, for the params of rules that read the table."""
        used = {parse_plan(cell.plan).group.kind for cell in self.choosing}
        return {name: method.plain() for name, method in METHODS.items() if name in used}

    def choices(self) -> list[list[Any]]:
        """The heads that plans choose by scores, each as `statistics.stability.Choice` has it, sorted."""
        found = set()
        for cell in self.all:
            plan = parse_plan(cell.plan).group
            if plan.scores:
                at = cell.attributed
                less = self.subtracted(at)[:2] if plan.contrasted else ("", "")
                found.add((at.model, at.dataset, at.template, at.ablation, plan.kind, plan.n, *less))
        return [list(choice) for choice in sorted(found)]

    def paths(self, stage: str, cells: Iterable[Cell] | None = None) -> list[str]:
        """The paths of a stage's files for these cells (for all cells if None), sorted and each once."""
        keyed = self.all if cells is None else cells
        return sorted({PATHS[stage].format(**cell._asdict()) for cell in keyed})

    def plan_of(self, plan: str, ablation: str) -> Plan:
        """What a plan's name means under an ablation.

        The ablation `plain` and the plan `none` both say that nothing is ablated, so each is allowed with the other
        only. Raises SafetyHeadsError for one without the other, and for a malformed name of a plan.
        """
        found = parse_plan(plan)
        if (found.kind == "none") != (ablation == PLAIN):
            raise SafetyHeadsError(f"Plan {plan!r} under {ablation!r}: the plain model is `{PLAIN}/none`.")
        return found

    def plan_settings(self, plan: str, ablation: str) -> dict[str, Any]:
        """What the configuration says of a plan's heads, for the params of its job.

        Plans of random heads and matched ones have `random`: how many draws of their kind are made, and their seed. A
        plan about a head set has `heads`, the names of its heads. All else follows from the plan's name and from
        scores. Raises SafetyHeadsError for an unknown name.
        """
        found, known = self.plan_of(plan, ablation), self.config.head_sets
        drawn = {"random": "draws", "matched": "matched"}.get(found.kind)
        settings = self.config.random.plain()
        said: dict[str, Any] = {"random": {key: settings[key] for key in (drawn, "seed")}} if drawn else {}
        if found.method:
            said["chooses"] = [found.method.chooses, found.method.contrasted]
        if found.head_set is None:
            return said
        if found.head_set not in known:
            raise SafetyHeadsError(
                f"{plan!r}: {found.head_set!r} is neither a plan nor in head_sets.{nearest(found.head_set, known)}"
            )
        return said | {"heads": sorted(known[found.head_set])}

    def scores_inputs(self, method: str, model: str) -> dict[str, str]:
        """The input files of a job of a method's scores: `model`, `prompts` and the `benign` prompts where it has them.

        Ships has them if there are any. The paths still have their keys in braces. Raises SafetyHeadsError for an
        unknown model.
        """
        inputs, wanted = {"model": PATHS["models"], "prompts": PATHS["prompts"]}, METHODS[method].benign != "none"
        benign = self.config.benign_of(model, self.config.named) if wanted else None
        return inputs | ({"benign": inputs["prompts"].replace("{dataset}", benign)} if benign else {})

    def completion_inputs(self, plan: str, ablation: str, model: str, dataset: str) -> dict[str, str]:
        """The input files of a completions job: `model`, `prompts`, and `scores` if the plan needs any.

        A plan that compares scores with others has these as `less`. The paths still have their keys in braces. Raises
        SafetyHeadsError as `plan_of` and `Config.subtracted` do.
        """
        found = self.plan_of(plan, ablation)
        inputs = {"model": PATHS["models"], "prompts": PATHS["prompts"]}
        if found.scores:
            path = scores_path(found.scores)
            inputs["scores"] = path.replace("{dataset}", found.source or "{dataset}")
            if found.contrasted:
                base, other = self.config.subtracted(model, found.source or dataset, self.config.named)
                inputs["less"] = path.replace("{model}", base).replace("{dataset}", other)
        return inputs

    def utility_inputs(self, plan: str, ablation: str, model: str, dataset: str) -> dict[str, str]:
        """The input files of a job of task accuracy: those of completions, but for prompts, as tasks have their own."""
        inputs = self.completion_inputs(plan, ablation, model, dataset)
        return {name: path for name, path in inputs.items() if name != "prompts"}

    def verdict_inputs(self, model: str, judge: str) -> dict[str, str]:
        """The input files of a verdicts job: `completions`, and `plain`, those of the plain model.

        For a model that thinks there are also its `prompts` and the `model` itself, whose tokenizer knows its tags. Of
        a judge with a model there is what it has `judged`, for one that reads a file there are the `queries`. The paths
        still have their keys in braces.
        """
        completions, known = PATHS["completions"], self.config.judge(judge)
        inputs = {"completions": completions, "plain": completions.replace("{ablation}/{plan}", f"{PLAIN}/none")}
        if self.config.thinking(model):
            inputs |= {"prompts": PATHS["prompts"], "model": PATHS["models"]}
        inputs |= {"judged": PATHS["judged"]} if known.needs_model else {}
        return inputs | ({"queries": PATHS["datasets"]} if known.kind == "file" else {})

    def with_effects(self) -> list[Cell]:
        """The cells with a row of effects: those of plans that attribution chooses, and of head sets."""
        return [cell for cell in self.all if parse_plan(cell.plan).has_effects]

    def maps(self) -> list[Cell]:
        """The cells that are maps of single heads, and the plain model's cells."""
        return [cell for cell in self.all if parse_plan(cell.plan).kind in ("none", "single", "each")]

    def measured(self) -> dict[str, str]:
        """The paths of the tables that the page shows, by stage. A study without maps has none about them.

        There are none, and no page, where all studies are experiments that measure no rates.
        """
        if not self.all:
            return {}
        stages = ["rates", "effects", "effects_by_category", "noise"]
        stages += ["calibration"] * bool(self.labelled()) + ["agreement"] * bool(self.by_several_judges())
        if any(cell.plan != "none" for cell in self.maps()):
            stages += ["maps", "maps_by_head"]
        if self.attacked():
            stages += ["attacks"]
        if self.choices():
            stages += ["concentration", "stability"]
        if any(study.experiment for study in self.studies.values()):
            stages += ["paper_vs_ours"]
        return {stage: PATHS[stage] for stage in stages}

    def labelled(self) -> list[str]:
        """The paths of the labelled answers of those judges that have labels, sorted."""
        used, known = {cell.judge for cell in self.all}, self.config.known("judges")
        return sorted(PATHS["labelled"].format(judge=name) for name in used if getattr(known[name], "labels", None))

    def by_several_judges(self) -> list[Cell]:
        """The cells whose completions several judges judge."""
        judges = Counter(cell[:-1] for cell in self.all)
        return [cell for cell in self.all if judges[cell[:-1]] > 1]

    def with_plain_rows(self) -> list[Cell]:
        """The cells whose completions hold the plain rows of their batches, and the plain model's cells."""
        return [cell for cell in self.all if cell.plan == "none" or parse_plan(cell.plan).paired]

    def drop_leaks(self) -> list[list[str]]:
        """The cells whose effects leave out leaked queries, sorted: those of all studies with `leaks: drop`."""
        dropping = [name for name, study in self.studies.items() if study.leaks == "drop"]
        return [list(cell) for cell in Cells(self.config, dropping).with_effects()]
