"""Attack success rates of every cell of the studies."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.jobs.run import logged, provenance
from safetyheads.statistics.rates import rates

with logged(snakemake.log[0]):
    verdicts = pd.concat([files.read(Path(path)) for path in snakemake.input], ignore_index=True)
    files.write("rates", Path(snakemake.output[0]), rates(verdicts), {}, provenance(snakemake.params))
