"""Make the table and the figure of an experiment from the results of its study alone."""

from hashlib import sha256
from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.artifacts.latex import latex
from safetyheads.config.load import Config
from safetyheads.experiments import EXPERIMENTS
from safetyheads.jobs.experiment_results import experiment_results
from safetyheads.jobs.run import logged
from safetyheads.report.figures.experiments import experiment_figure

with logged(snakemake.log[0]):
    settings, params, output = Config.model_validate(snakemake.config), snakemake.params, snakemake.output
    given = {name: params[name] for name in ("benign", "gpus", "sizes")}
    found = experiment_results(params.kind, snakemake.input, settings, **given)
    study, about = snakemake.wildcards.study, EXPERIMENTS[params.kind].about
    prefix = f"x{sha256(study.encode()).hexdigest()[:8]}"  # figures stand on one page
    files.write_text(Path(output.table), found.table.to_csv(index=False))
    files.write_text(Path(output.latex), latex(found.table, f"{study}: {about}"))
    files.write_text(Path(output.figure), experiment_figure(params.kind, found, f"{study}: {about}", prefix))
