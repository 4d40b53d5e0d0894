"""What the files of data sets and models are made from, and whether that changed: for inputs and params of rules."""

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

    def task_content(self) -> dict[str, str]:
        """The sums of the files in the folder of the user's own tasks, by name; empty where there is no such folder."""
        folder = Path(self.config.utility.folder or "").expanduser()
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if self.config.utility.folder else []
        return {path.relative_to(folder).as_posix(): file_sum(path) for path in files}


def _sum_in_record(results: Path, dataset: str) -> str:
    """The sum of the file that a data set was read from, by the record of what was read; empty if that is not there."""
    from safetyheads.artifacts.provenance import provenance

    try:
        return str(provenance(results / STAGES["datasets"].path.format(dataset=dataset)).get("sha256", ""))
    except (OSError, ValueError, LookupError, TypeError):
        return ""
