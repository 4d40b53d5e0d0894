"""Judge the completions of a cell: which of them are harmful?"""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.judges import from_config

with logged(snakemake.log[0]):
    source, settings = Path(snakemake.input[0]), Config.model_validate(snakemake.config)
    completions = files.read(source, ["query_id", "variant", "sample", "text"])
    judge = from_config(**snakemake.params.judge)
    rows = completions.join(judge.judge(completions["text"]))
    record = record_of(snakemake.params, settings.results, inputs=[source])
    files.write("verdicts", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
