"""Write the answers on which a judge of the kind `file` has no verdict, those with labels too, as a CSV file."""

import csv
from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.labels_of import labels_of
from safetyheads.jobs.run import logged
from safetyheads.judges.recorded import file_judge

with logged(snakemake.log[0]):
    settings, inputs, name = Config.model_validate(snakemake.config), snakemake.input, snakemake.wildcards.judge
    judge = settings.judge(name)
    if judge.kind != "file":
        raise SafetyHeadsError(f"The judge {name!r} is of kind: {judge.kind}; allowed: kind: file.")
    queries = pd.concat([files.read(Path(path), ["query_id", "query"]) for path in inputs.queries])
    said = [files.read(Path(path), ["query_id", "text"]).drop_duplicates() for path in inputs.completions]
    answers = pd.concat(said).merge(queries)[["query", "text"]]
    if judge.labels:
        labelled = labels_of(settings, name, Path(inputs.labels) if hasattr(inputs, "labels") else None)
        answers = pd.concat([answers, labelled[["query", "text"]]])
    answers = answers.drop_duplicates()
    if Path(judge.path).expanduser().exists():
        known = file_judge(Path(judge.path).expanduser(), judge.detects or "harm").verdicts
        answers = answers[[key not in known for key in answers.itertuples(index=False, name=None)]]
    # All values in quotes: without them, a text with a carriage return alone would break its row.
    text = answers.sort_values(["query", "text"]).to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    files.write_text(Path(snakemake.output[0]), text)
