"""Train a demo model, with the safety heads of its kind and perhaps a decoy planted in it."""

from pathlib import Path

from safetyheads.demo.model import train
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import parse_head
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    demo = snakemake.params.model.get("demo")
    if demo is None:
        raise SafetyHeadsError(f"Model {snakemake.wildcards.model!r} is not a demo model: it is not trained here.")
    train(
        Path(snakemake.output[0]),
        kind=demo["kind"],
        seed=demo["seed"],
        planted=tuple(map(parse_head, demo["planted"])),
        decoy=parse_head(demo["decoy"]) if "decoy" in demo else None,
        aligned=demo["aligned"],
    )
