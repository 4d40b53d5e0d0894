"""Read the queries of a data set."""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.datasets import read_queries, table
from safetyheads.demo.requests import columns
from safetyheads.jobs.run import logged, provenance
from safetyheads.models.download import sha256_of, verify

with logged(snakemake.log[0]):
    name, params = snakemake.wildcards.dataset, snakemake.params.dataset
    if "demo" in params:
        rows, record = table(name, *columns(params["demo"])), provenance(snakemake.params)
    else:
        file = Path(snakemake.input[0])
        verify(file, params.get("sha256"), str(file))
        rows = read_queries(
            file,
            dataset=name,
            format=Config.model_validate(snakemake.config).dataset(name).file_format,
            query=params.get("query"),
            category=params.get("category"),
            target=params.get("target"),
        )
        record = provenance(snakemake.params) | {"sha256": sha256_of(file)}
    files.write("datasets", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
