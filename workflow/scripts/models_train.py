"""Train the demo model, with two safety heads and perhaps a decoy planted in it."""

from pathlib import Path

from safetyheads.demo.model import train
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import parse_head
from safetyheads.jobs.run import logged

with logged(snakemake.log[0]):
    demo = snakemake.params.model.get("demo")
    if demo is None:
        raise SafetyHeadsError(f"Model {snakemake.wildcards.model!r} is not a demo model: it is not trained here.")
    first, second = map(parse_head, demo["planted"])
    decoy = parse_head(demo["decoy"]) if "decoy" in demo else None
    train(Path(snakemake.output[0]), seed=demo["seed"], planted=(first, second), decoy=decoy, aligned=demo["aligned"])
