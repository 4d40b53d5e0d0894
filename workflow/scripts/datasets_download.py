"""Fetch the file of a data set."""

from pathlib import Path

from safetyheads.download import download
from safetyheads.hub import download_from_hub
from safetyheads.job import logged

with logged(snakemake.log[0], online=True):
    source, destination = snakemake.params.source, Path(snakemake.output[0])
    if "url" in source:
        download(source["url"], destination, source.get("sha256"))
    else:
        download_from_hub(source["repo"], source.get("revision"), source["file"], destination, source.get("sha256"))
