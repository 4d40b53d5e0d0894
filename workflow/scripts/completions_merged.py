"""Put the shards of a cell's completions together into one file. It has the rows that a single job would have made."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.parts import remove_parts
from safetyheads.artifacts.provenance import common, provenance
from safetyheads.jobs.run import logged
from safetyheads.plans import in_order

with logged(snakemake.log[0]):
    output, shards = Path(snakemake.output[0]), list(map(Path, snakemake.input))
    rows = in_order(pd.concat([files.read(shard) for shard in shards]))
    files.write("completions", output, rows, dict(snakemake.wildcards), common(map(provenance, shards)))
    remove_parts(output)
