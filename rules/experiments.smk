rule experiments:
    input:
        unpack(asked(cells.experiment_inputs, "study")),
    output:
        table=PATHS["experiments"],
        latex=PATHS["experiments_latex"],
        figure=report(
            PATHS["experiments_figure"],
            caption="../workflow/report/experiment.rst",
            category="Experiments",
            labels={"study": "{study}"},
        ),
    log:
        "<results>/logs/experiments/{study}.log",
    benchmark:
        "<results>/benchmarks/experiments/{study}.jsonl"
    conda:
        ENVIRONMENT
    params:
        kind=lambda wildcards: settings.studies[wildcards.study].experiment,
        benign=settings.benign(),
        code=code("experiments"),
    message:
        "Experiment {wildcards.study}"
    script:
        "../workflow/scripts/experiments.py"


# `snakemake figure-5` makes the experiment of this name, and nothing that only others need.
for study in cells.experiments():

    rule:
        name:
            study
        input:
            cells.experiments()[study],
