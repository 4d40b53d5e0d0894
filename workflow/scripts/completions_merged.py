"""Put the shards of a cell's completions together: the same file as one job would have made."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.jobs.run import common, logged
from safetyheads.plans import in_order

with logged(snakemake.log[0]):
    shards = list(map(Path, snakemake.input))
    rows = in_order(pd.concat([files.read(shard) for shard in shards]))
    record = common(map(files.provenance, shards))
    files.write("completions", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
