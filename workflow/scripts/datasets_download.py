"""Download the file of a data set, from an address or from the Hugging Face hub."""

from pathlib import Path

from safetyheads.jobs.run import logged
from safetyheads.models.download import download
from safetyheads.models.hugging_face import download_from_hub

with logged(snakemake.log[0], online=True):
    source, destination = snakemake.params.source, Path(snakemake.output[0])
    if "url" in source:
        download(source["url"], destination, source.get("sha256"))
    else:
        download_from_hub(source["repo"], source.get("revision"), source["file"], destination, source.get("sha256"))
