"""Put the published numbers beside the measured ones."""

from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.artifacts.latex import latex
from safetyheads.artifacts.provenance import made_from, together
from safetyheads.config.load import Config
from safetyheads.config.published import FILE
from safetyheads.jobs.hours import hours
from safetyheads.jobs.records import commit, record_of
from safetyheads.jobs.run import logged
from safetyheads.statistics.paper_vs_ours import measured, paper_vs_ours

with logged(snakemake.log[0]):
    settings, params, output = Config.model_validate(snakemake.config), snakemake.params, snakemake.output
    read = {name: [Path(path) for path in snakemake.input.get(name, [])] for name in ("rates", "maps")}
    rates, by_head = (pd.concat([pd.DataFrame(), *map(files.read, paths)]) for paths in read.values())
    took = {name: snakemake.input.get(name, []) for name in ("sahara", "completions")}
    spent = hours(Path(settings.results), took, params.gpus)
    others = measured(rates, by_head, spent, params.of_heads, params.same, params.sizes)
    published = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    table = paper_vs_ours(published, rates, params.same, params.sizes, others)
    record = record_of(params, settings.results) | commit(Path(snakemake.scriptdir).parents[1])
    record |= {"made_from": together(made_from([*read["rates"], *read["maps"]], Path(settings.results)))}
    files.write("paper_vs_ours", Path(output.table), table, {}, record)
    files.write_text(Path(output.csv), table.to_csv(index=False))
    files.write_text(Path(output.latex), latex(table, "Published numbers beside measured ones"))
