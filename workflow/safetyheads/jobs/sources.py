"""What the files of data sets and models are made from, and whether that changed: for inputs and params of rules."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from safetyheads.artifacts.schemas import DEMO_WEIGHTS, STAGES
from safetyheads.config.load import Config
from safetyheads.jobs.content import file_sum, folder_sum

PATHS = {stage: f"<results>/{known.path}" for stage, known in STAGES.items()}
"""Path of each stage's artefacts as rules write it: `<results>` and the keys in braces are filled in by Snakemake."""

DOWNLOAD = "<results>/datasets/.{dataset}.download"
"""Path of a data set's file as it was downloaded."""

WEIGHTS = f"<results>/{DEMO_WEIGHTS}"
"""Path of the folder of a demo model."""


class Sources:
    """The sources of the data sets and models of a configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def dataset_source(self, name: str) -> str | list[str]:
        """The input of a data set's job: the file that was downloaded.

        Of the user's own file the content counts, as `dataset_content` tells it. Data sets of the demo have no file.
        """
        dataset = self.config.dataset(name)
        return [] if dataset.demo or dataset.path else DOWNLOAD.format(dataset=name)

    def dataset_content(self, name: str) -> str:
        """The sum of a data set's file; empty if there is none, or none yet.

        The sum of a file that was downloaded is asked for when the download has ended. If somebody deleted that file
        later, what was read from it says the sum, so that a data set that was read is not fetched again.
        """
        dataset, results = self.config.dataset(name), Path(self.config.results)
        if dataset.demo:
            return ""
        file = Path(dataset.path or DOWNLOAD.replace("<results>", str(results)).format(dataset=name))
        return file_sum(file) or ("" if dataset.path else _sum_in_record(results, name))

    def model_source(self, name: str) -> str | list[str]:
        """The inputs of the job that describes a model.

        They are the folder of a demo model, or the descriptions of the two models that a derived model is made from. Of
        a local model the content counts, as `model_content` tells it. A model of the Hugging Face hub has no input: its
        revision, among the job's params, already says which files are meant.
        """
        if sources := self.config.sources(name):
            return [PATHS["models"].format(model=source) for source in sources]
        return WEIGHTS.format(model=name) if self.config.model(name).demo else []

    def model_content(self, name: str) -> str:
        """The sum of the files of a local model; empty for any other model."""
        path = self.config.model(name).path
        return folder_sum(Path(path).expanduser(), name) if path else ""

    def task_folder(self) -> Path | None:
        """The folder of the user's own tasks."""
        path = self.config.utility.folder
        return Path(path).expanduser().resolve() if path else None

    def task_content(self) -> dict[str, str]:
        """What tasks follow from: the version of the harness, and the sums of the files in the user's folder, by name.

        Files that programs leave there unasked, such as hidden ones and Python's caches, do not count.
        """
        try:
            found = {"lm_eval": version("lm_eval")}
        except PackageNotFoundError:
            found = {}  # the job says so
        if (folder := self.task_folder()) is None:
            return found
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_file() and not any(
                part.startswith((".", "__pycache__")) or part.endswith("~") for part in parts
            ):
                found["/".join(parts)] = file_sum(path)
        return found


def _sum_in_record(results: Path, dataset: str) -> str:
    """The sum of the file that a data set was read from, by the record of what was read; empty if that is not there."""
    from safetyheads.artifacts.provenance import provenance

    try:
        return str(provenance(results / STAGES["datasets"].path.format(dataset=dataset)).get("sha256", ""))
    except (OSError, ValueError, LookupError, TypeError):
        return ""
