"""Draw the sample of answers that people label, and write it as a CSV file and as a page."""

from itertools import groupby
from pathlib import Path

import pandas as pd

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.run import logged
from safetyheads.report.annotation import as_csv, blinded, page
from safetyheads.statistics.annotation_sample import OF_COMPLETIONS, OF_VERDICTS, answers, draw

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    results = Path(settings.results)
    asked = pd.concat([files.read(Path(path), ["query_id", "query"]) for path in inputs.datasets])
    queries = dict(zip(asked["query_id"], asked["query"]))
    judged = groupby(sorted(map(Path, inputs.verdicts)), key=lambda path: path.parent)
    verdicts = {folder.relative_to(results / "verdicts"): list(paths) for folder, paths in judged}
    found = []
    for path in map(Path, inputs.completions):
        cell = path.with_suffix("").relative_to(results / "completions")
        told = pd.concat([files.read(judge, OF_VERDICTS) for judge in verdicts[cell]], ignore_index=True)
        found.append(answers(files.read(path, OF_COMPLETIONS), told, queries))
    rows = blinded(draw(pd.concat(found, ignore_index=True), settings.annotation.size, settings.annotation.seed))
    files.write_text(Path(snakemake.output.sample), as_csv(rows))
    files.write_text(Path(snakemake.output.page), page(rows))
