"""Names that a configuration may use without declaring them: the built-in ones, and the entries of config/catalogue."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import cast, get_args

import yaml

from safetyheads.config.judges import Judge
from safetyheads.config.sections import AblationConfig, Decoding, Section, Template
from safetyheads.config.sources import Dataset, Model
from safetyheads.config.types import ListName
from safetyheads.heads import Kind

FOLDER = Path(__file__).parents[3] / "config" / "catalogue"

URIAL = (FOLDER / "urial.txt").read_text(encoding="utf-8")
"""In-context alignment of a base model, in the form of appendix D: an instruction and three shots, in our own words."""

BUILT_IN: Mapping[str, Mapping[str, Section]] = MappingProxyType(
    {
        "templates": {
            "direct": Template(text="{query}"),
            "simple": Template(text="## Query:{query}\n## Answer:"),
            "chat": Template(chat=True),
            "urial": Template(text=URIAL),
        },
        "ablations": {kind.value: AblationConfig(kind=kind.value) for kind in Kind},
        "decodings": {"greedy": Decoding(top_k=1), "top5": Decoding(top_k=5, samples=3)},
        "judges": {name: Judge(kind="keywords", list=name) for name in get_args(ListName)},
    }
)
"""What is known without being declared, besides the catalogue."""


class Facts(Section):
    """What the catalogue tells of a model besides where it is, for estimates and for people."""

    layers: int
    """Number of layers."""
    heads: int
    """Query heads per layer."""
    kv_heads: int
    """Key/value heads per layer."""
    head_dim: int
    """Size of a head."""
    hidden: int
    """Width of the hidden states."""
    intermediate: int
    """Width of the MLP, which has a gate."""
    vocabulary: int
    """Number of tokens, as the output layer has them."""
    tied: bool = False
    """Embedding and output layer are one matrix."""
    gated: bool = False
    """Access has to be asked for at huggingface.co."""
    note: str = ""
    """What to know before using it."""


class CatalogueModel(Facts, Model):
    """A model of config/catalogue/models.yaml."""

    remarks = frozenset(Facts.model_fields)


class CatalogueDataset(Dataset):
    """A data set of config/catalogue/datasets.yaml."""

    remarks = frozenset({"licence", "rows", "note"})

    licence: str
    """Licence of the data."""
    rows: int
    """Number of queries."""
    note: str = ""
    """What to know before using it."""


class CatalogueJudge(Facts, Judge):
    """A judge of config/catalogue/judges.yaml."""

    remarks = Judge.remarks | frozenset(Facts.model_fields) | {"licence"}

    licence: str
    """Licence of the model."""


@cache
def catalogue(section: str) -> Mapping[str, Section]:
    """The entries of the catalogue for `models`, `datasets` or `judges`, nothing for other sections."""
    classes: dict[str, type[Section]] = {
        "models": CatalogueModel,
        "datasets": CatalogueDataset,
        "judges": CatalogueJudge,
    }
    if section not in classes:
        return {}
    entries = yaml.load((FOLDER / f"{section}.yaml").read_text(encoding="utf-8"), Loader=yaml_loader())
    return MappingProxyType({name: classes[section].model_validate(entry) for name, entry in entries.items()})


def catalogue_model(repo: str | None) -> CatalogueModel | None:
    """The catalogue's entry for a repository, whatever name a configuration gives it; None if it has none."""
    entries = (entry for entry in catalogue("models").values() if isinstance(entry, CatalogueModel))
    return next((entry for entry in entries if repo and entry.repo == repo), None)


def catalogue_judge(repo: str | None) -> CatalogueJudge | None:
    """The catalogue's judge whose model is in a repository; None if it has none."""
    entries = (entry for entry in catalogue("judges").values() if isinstance(entry, CatalogueJudge))
    return next((entry for entry in entries if repo and entry.repo == repo), None)


def catalogue_dataset(data: Dataset) -> CatalogueDataset | None:
    """The catalogue's entry for the file that `data` names; None if it has none."""
    entries = (entry for entry in catalogue("datasets").values() if isinstance(entry, CatalogueDataset))
    return next((entry for entry in entries if entry.place == data.place), None)


def yaml_loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe reader, in C where that is installed: it is ten times as fast."""
    return cast(type[yaml.SafeLoader], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
