"""Read the queries of a data set, from its file or from the demo's code, into one table."""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.datasets import pilot, read_queries, table
from safetyheads.demo.requests import columns
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.models.download import sha256_of, verify

with logged(snakemake.log[0]):
    name, params = snakemake.wildcards.dataset, snakemake.params.dataset
    settings = Config.model_validate(snakemake.config)
    # The sum among the params is of the file as the run was planned; the record has the sum of what is read.
    record = record_of({"dataset": params, "code": snakemake.params.code}, settings.results)
    if "demo" in params:
        rows = table(name, *columns(params["demo"]))
        record["digest"] = files.digest(rows)
    else:
        file = Path(settings.dataset(name).path or snakemake.input[0])
        fetched = "" if settings.dataset(name).path else " (delete it to fetch it again)"
        verify(file, params.get("sha256"), f"{file}{fetched}")
        record["sha256"] = sha256_of(file)
        named = {key: params.get(key) for key in ("query", "category", "target")}
        rows = read_queries(file, dataset=name, format=settings.dataset(name).file_format, **named)
    if params.keys() & {"limit", "sample", "half"}:
        record["queries"] = len(rows)  # of the whole file
        rows = pilot(rows, params.get("limit"), params.get("sample"), params.get("half"))
    files.write("datasets", Path(snakemake.output[0]), rows, dict(snakemake.wildcards), record)
