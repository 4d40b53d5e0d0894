"""Write the answers on which a judge that reads a file has no verdict, to be judged elsewhere."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.run import logged
from safetyheads.judges.recorded import file_judge

with logged(snakemake.log[0]):
    judge = Config.model_validate(snakemake.config).judge(snakemake.wildcards.judge)
    queries = pd.concat([files.read(Path(path), ["query_id", "query"]) for path in snakemake.input.queries])
    said = [files.read(Path(path), ["query_id", "text"]).drop_duplicates() for path in snakemake.input.completions]
    answers = pd.concat(said).merge(queries)[["query", "text"]].drop_duplicates()
    if judge.kind == "file" and Path(judge.path).expanduser().exists():
        known = file_judge(Path(judge.path).expanduser(), judge.detects or "harm").verdicts
        answers = answers[[key not in known for key in answers.itertuples(index=False, name=None)]]
    elif judge.kind != "file":
        raise SafetyHeadsError(
            f"The judge {snakemake.wildcards.judge!r} is of kind: {judge.kind}; allowed: kind: file."
        )
    text = answers.sort_values(["query", "text"]).to_csv(index=False, lineterminator="\n")
    files.write_text(Path(snakemake.output[0]), text)
