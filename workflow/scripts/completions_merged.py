"""Put the shards of a cell's completions together into one file. It has the rows that a single job would have made."""

import shlex
from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.artifacts.parts import remove_parts
from safetyheads.artifacts.provenance import common, provenance
from safetyheads.engine.plain_rows import put_together
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    output, shards = Path(snakemake.output[0]), list(map(Path, snakemake.input))
    record = common(map(provenance, shards))
    if isinstance(record.pop("token_budget"), list):  # a shard is every so-manieth batch: of batches of one size
        raise SafetyHeadsError(
            "The shards of these completions were made with different `compute: token_budget`, so that rows may be in "
            f"none of them. Delete them (`rm {shlex.join(map(str, shards))}`) and run again: finished batches are kept."
        )
    rows = put_together([files.read(shard) for shard in shards])
    files.write("completions", output, rows, dict(snakemake.wildcards), record)
    remove_parts(output)
    for other in output.parent.glob(f".{output.stem}.*-of-*{output.suffix}"):
        if other not in shards:  # of a run with another number of jobs; Snakemake deletes its own
            other.unlink()
