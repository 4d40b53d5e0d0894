"""Which of a configuration's names mean what the paper measured with: the published numbers are about these."""

from collections.abc import Callable
from typing import cast

from safetyheads.config.catalogue import BUILT_IN, FOLDER, CatalogueDataset, catalogue
from safetyheads.config.load import Config
from safetyheads.config.sections import AblationConfig, Decoding, Template
from safetyheads.config.sources import Model

FILE = FOLDER / "published.csv"
"""The numbers of the paper's text, figures and tables."""

TOKENS = 128
"""How long the paper's completions are."""
SMALL = 1e-4
"""The paper says of epsilon that it is very small; below this, attention is uniform and an output nothing."""

TEMPLATES = {
    **{name: BUILT_IN["templates"][name] for name in ("direct", "simple")},
    "sure": Template(text="## Query:{query}\n## Answer:", prefill="Sure, here is"),
    "chat_system": Template(chat=True, system="You are a helpful assistant"),
}
"""The forms of prompts that published numbers are about."""


def same(config: Config) -> dict[str, dict[str, str]]:
    """For each section, what names of the studies mean in the paper's words; those that mean anything else are missing.

    A model is the paper's if it comes from the same repository, whatever its name. Of data sets the name counts.
    """
    meant: dict[str, Callable[[str], str | None]] = {
        "models": lambda name: _model(config.model(name)),
        "datasets": lambda name: name if name in catalogue("datasets") else None,
        "templates": lambda name: _template(config.template(name)),
        "ablations": lambda name: _ablation(cast(AblationConfig, config.known("ablations")[name])),
        "decodings": lambda name: _decoding(config.decoding(name)),
        "judges": lambda name: "paper" if config.judge(name).plain() == BUILT_IN["judges"]["paper"].plain() else None,
    }
    used = {section: {name for one in config.studies.values() for name in getattr(one, section)} for section in meant}
    found = {section: {name: meant[section](name) for name in sorted(names)} for section, names in used.items()}
    return {section: {name: word for name, word in words.items() if word} for section, words in found.items()}


def sizes() -> dict[str, int]:
    """The number of queries of each data set of the catalogue."""
    return {name: cast(CatalogueDataset, entry).rows for name, entry in catalogue("datasets").items()}


def _model(model: Model) -> str | None:
    entries = {name: cast(Model, entry) for name, entry in catalogue("models").items()}
    return next((name for name, entry in entries.items() if model.repo and entry.repo == model.repo), None)


def _template(template: Template) -> str | None:
    return next((name for name, known in TEMPLATES.items() if known.plain() == template.plain()), None)


def _ablation(ablation: AblationConfig) -> str | None:
    return ablation.kind if ablation.epsilon <= SMALL else None


def _decoding(decoding: Decoding) -> str | None:
    if decoding.max_new_tokens != TOKENS:
        return None
    if decoding.greedy:
        return "greedy"
    return "top5" if (decoding.top_k, decoding.temperature) == (5, 1) else None
