"""Judge completions."""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.jobs.run import logged, provenance
from safetyheads.judges import from_config

with logged(snakemake.log[0]):
    completions = files.read(Path(snakemake.input[0]), ["query_id", "variant", "sample", "text"])
    judge = from_config(**snakemake.params.judge)
    rows = completions.join(judge.judge(completions["text"]))
    record = provenance(snakemake.params)
    files.write("verdicts", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
