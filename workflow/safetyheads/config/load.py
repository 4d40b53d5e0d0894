"""Reading a configuration: everything is named once, and `studies` say which combinations are run.

`load_config` checks what a YAML file holds and returns it typed. `Config.model(name)` and its like then give what a
name stands for: what the file declares under that name, else what is built in or in config/catalogue. Importing this
module is quick, because it loads neither torch nor pandas.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import Field, ValidationError

from safetyheads.config import sections
from safetyheads.config.attribution import Attribution
from safetyheads.config.catalogue import BUILT_IN, catalogue, catalogue_model
from safetyheads.config.checks import check_studies
from safetyheads.config.judges import NO_RESULT, SOURCE, Judge
from safetyheads.config.local_models import local_grid
from safetyheads.config.messages import describe, prune
from safetyheads.config.sources import Dataset, Model
from safetyheads.config.types import AblationName, Folder, HeadNames, HeadSetName, Name
from safetyheads.errors import SafetyHeadsError, nearest
from safetyheads.heads import DEMO_GRID
from safetyheads.plans import PLAIN, parse_plan

DEMO_BENIGN = "demo_benign"
"""The data set of the catalogue that demo models answer."""


class Declarations(sections.Section):
    """The configuration without its studies."""

    results: Folder = "results"
    """Folder of the results."""
    models: dict[Name, Model] = {}
    """Language models."""
    datasets: dict[Name, Dataset] = {}
    """Lists of queries."""
    templates: dict[Name, sections.Template] = {}
    """Forms of the prompt."""
    ablations: dict[AblationName, sections.AblationConfig] = {}
    """Ways to ablate a head."""
    decodings: dict[Name, sections.Decoding] = {}
    """Ways to generate completions."""
    judges: dict[Name, Judge] = {}
    """Ways to tell harmful completions."""
    head_sets: dict[HeadSetName, HeadNames] = {}
    """Named sets of heads, to be used as plans."""
    random: sections.Random = sections.Random()
    """Heads drawn at random: the controls."""
    attribution: Attribution = Attribution()
    """Scoring of heads."""
    compute: sections.Compute = sections.Compute()
    """Device, batch size, jobs."""
    report: sections.Report = sections.Report()
    """The report."""
    utility: sections.Utility = sections.Utility()
    """Accuracy on tasks with heads ablated."""
    annotation: sections.Annotation = sections.Annotation()
    """The sample of answers that people label."""

    def known(self, section: str) -> dict[str, sections.Section]:
        """All names of `section` (`models`, `datasets`, ...): built in, of the catalogue, declared; later ones win."""
        return {**BUILT_IN.get(section, {}), **catalogue(section), **getattr(self, section)}

    def _named(self, section: str, name: str) -> Any:
        known = self.known(section)
        if name not in known:
            raise SafetyHeadsError(
                f"{section}: found {name!r}, which is not known; allowed: {', '.join(known)}.{nearest(name, known)} "
                f"Declare others under `{section}:` in the configuration."
            )
        return known[name]

    def given(self, section: str, name: str, keys: Sequence[str] = ()) -> dict[str, Any]:
        """What a job depends on of the entry `name` of a section: these keys, if they are set; without keys, all.

        The plain model is an ablation that says nothing.
        """
        if section == "ablations" and name == PLAIN:
            return {}
        values = self._named(section, name).plain()
        return {key: value for key, value in values.items() if not keys or key in keys}

    def model(self, name: str) -> Model:
        """What `name` stands for. Raises SafetyHeadsError for an unknown one; so do the methods below."""
        return cast(Model, self._named("models", name))

    def sources(self, name: str) -> tuple[str, ...]:
        """The names of the models that a derived model is made of, attention first; none for any other model."""
        model = self.model(name)
        return (model.attention_from, model.rest_from) if model.attention_from and model.rest_from else ()

    def chat_template(self, name: str) -> str | None:
        """The chat template for a model whose tokenizer has none; a derived model's is that of its rest."""
        model = self.model(name)
        return model.chat_template or (self.chat_template(model.rest_from) if model.rest_from else None)

    def thinking(self, name: str) -> dict[str, Any]:
        """The tags `open` and `close` of a model that thinks; nothing for others. A derived model's are its rest's."""
        model = self.model(name)
        known = model.thinking or getattr(catalogue_model(model.repo), "thinking", None)
        if known is None and model.rest_from:
            return self.thinking(model.rest_from)
        return known.plain() if known else {}

    def judge(self, name: str) -> Judge:
        return cast(Judge, self._named("judges", name))

    def judge_source(self, name: str) -> dict[str, Any]:
        """Where the files of a judge's model come from. Raises SafetyHeadsError for a judge without one."""
        judge = self.judge(name)
        if not judge.needs_model:
            raise SafetyHeadsError(f"The judge {name!r} has no model: it is of kind: {judge.kind}.")
        return {key: value for key, value in judge.plain().items() if key in ("kind", *SOURCE)}

    def judged_by(self, name: str) -> dict[str, Any]:
        """What the judgements of a judge's model depend on; nothing of a judge without one."""
        judge = self.judge(name)
        return {key: value for key, value in judge.plain().items() if judge.needs_model and key not in NO_RESULT}

    def labels_by(self, name: str) -> dict[str, str]:
        """The `labels` of a judge. Raises SafetyHeadsError for a judge without any."""
        if (labels := self.judge(name).labels) is None:
            raise SafetyHeadsError(f"The judge {name!r} has no labels. Set its `labels:` in the configuration.")
        return {"labels": labels}

    def verdicts_by(self, name: str) -> dict[str, Any]:
        """What verdicts depend on besides completions and, where a model judges, what it has said of them."""
        values = self.judge(name).plain()
        kept = ("kind", "detects") if self.judge(name).needs_model else values
        return {key: value for key, value in values.items() if key in kept}

    def dataset(self, name: str) -> Dataset:
        return cast(Dataset, self._named("datasets", name))

    def template(self, name: str) -> sections.Template:
        return cast(sections.Template, self._named("templates", name))

    def decoding(self, name: str) -> sections.Decoding:
        return cast(sections.Decoding, self._named("decodings", name))

    def benign_sets(self, named: Iterable[str]) -> list[str]:
        """The benign data sets that are declared, or are among those that studies name; sorted."""
        known = self.known("datasets")
        return sorted(name for name in {*self.datasets, *named} if name in known and self.dataset(name).benign)

    def benign_of(self, model: str, named: Iterable[str]) -> str | None:
        """The name of the data set of benign queries by which heads of a model are scored; None if there is none.

        That is `attribution: benign`; unless set, that of the demo for demo models, else the only one of `benign_sets`.
        """
        if self.attribution.benign:
            return self.attribution.benign
        if self.model(self.model(model).rest_from or model).demo:
            return DEMO_BENIGN
        known = self.benign_sets(named)
        return known[0] if len(known) == 1 else None

    def no_benign(self, who: str, named: Iterable[str]) -> str:
        """What is wrong, in words, where `who` needs benign queries and `benign_of` finds none."""
        known = ", ".join(self.benign_sets(named))
        found = f"there are several: {known}" if known else "none is known"
        return (
            f"{who} needs a data set of benign queries, and {found}; allowed: attribution: {{benign: NAME}}, "
            "or one data set with `benign: true`"
        )

    def subtracted(self, model: str, dataset: str, named: Iterable[str]) -> tuple[str, str]:
        """The model and the data set whose Ships scores `contrast-N` subtracts from those of this model on this one.

        Raises SafetyHeadsError if there are none, or if they would be the same scores.
        """
        if self.attribution.contrast:
            found = self.attribution.contrast.base, dataset
        elif benign := self.benign_of(model, named):
            found = model, benign
        else:
            raise SafetyHeadsError(
                f"{self.no_benign('a contrast', named)}, or attribution: {{contrast: {{base: MODEL}}}}"
            )
        if found == (model, dataset):
            raise SafetyHeadsError(
                f"a contrast of {model!r} on {dataset!r} would subtract the same scores; allowed: another data set to "
                "choose heads on, and a model that is not its own base. Put others into a configuration of their own"
            )
        return found

    def grid(self, name: str, folder: Path | None = None) -> tuple[int, int] | None:
        """Layers of a model, and query heads in a layer, where that is known without loading it; else None.

        It is known of the demo model, of local folders (relative to `folder`) and of repositories in the catalogue. A
        derived model has the grid of the model that most of it comes from.
        """
        model = self.model(name)
        if model.demo:
            return DEMO_GRID
        if model.path:
            return local_grid((folder or Path()) / model.path)
        if model.rest_from:
            return self.grid(model.rest_from, folder)
        entry = catalogue_model(model.repo)
        return (entry.layers, entry.heads) if entry else None


class Config(Declarations):
    """A whole configuration."""

    studies: dict[Name, sections.Study] = Field(min_length=1)
    """What to measure."""

    @property
    def named(self) -> set[str]:
        """The names of the data sets that studies list."""
        return {name for study in self.studies.values() for name in study.datasets}

    def benign(self) -> list[str]:
        """The names of the studies' data sets whose queries should be answered, sorted."""
        return sorted(name for name in self.named if self.dataset(name).benign)

    def plans(self, study: sections.Study, dataset: str) -> list[str]:
        """The names of the plans that a study measures on one of its data sets; `none` is always measured, too.

        On a benign data set no heads are chosen: a plan stands there for the same one of each other data set
        (`Plan.on_benign`).
        """
        if not self.dataset(dataset).benign:
            return study.plans
        others = [name for name in study.datasets if not self.dataset(name).benign]
        return [name for plan in study.plans for name in parse_plan(plan).on_benign(others)]


def load_config(raw: Mapping[str, Any], folder: Path | None = None) -> Config:
    """Check `raw`, the configuration as read from YAML, and return it typed.

    Relative paths are looked up in `folder` (by default the working directory). Raises SafetyHeadsError with every
    problem found: key, what was found, what is allowed, the nearest known name.
    """
    if not isinstance(raw, Mapping):
        raise SafetyHeadsError(
            f"The configuration is {type(raw).__name__} {raw!r}; allowed: a mapping with the keys "
            f"{', '.join(Config.model_fields)}. See config/README.md."
        )
    values = _plain(raw)
    try:
        config: Declarations = Config.model_validate(values)
        problems: list[str] = []
    except ValidationError as error:
        problems = describe(error, Config)
        config = Declarations.model_validate(prune(values, error))
    problems += check_studies(config, values, folder or Path())
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise SafetyHeadsError(f"The configuration has {count} (config/README.md explains every key):\n{lines}")
    return cast(Config, config)


def _plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
