from safetyheads.config.published import FILE, same, sizes
from safetyheads.costs.model_sizes import sizes_of_heads
from safetyheads.jobs.content import file_sum
from safetyheads.jobs.experiment_cells import ExperimentCells

experiment_cells = ExperimentCells(cells)


rule experiments:
    input:
        unpack(asked(experiment_cells.inputs, "study")),
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
        gpus=lambda wildcards: {
            name: settings.model(name).gpus
            for name in settings.studies[wildcards.study].models
        },
        sizes=lambda wildcards: known(
            sizes_of_heads, settings, settings.studies[wildcards.study].models
        ),
        code=code("experiments"),
    message:
        "Experiment {wildcards.study}"
    script:
        "../workflow/scripts/experiments.py"


rule paper_vs_ours:
    input:
        **experiment_cells.beside_the_paper(),
    output:
        table=PATHS["paper_vs_ours"],
        csv=PATHS["paper_vs_ours_csv"],
        latex=PATHS["paper_vs_ours_latex"],
    log:
        "<results>/logs/paper_vs_ours.log",
    benchmark:
        "<results>/benchmarks/paper_vs_ours.jsonl"
    conda:
        ENVIRONMENT
    params:
        same=same(settings),
        sizes=sizes(),
        of_heads=known(sizes_of_heads, settings, cells.models()),
        gpus={name: settings.model(name).gpus for name in cells.models()},
        published=file_sum(FILE),
        code=code("paper_vs_ours"),
    message:
        "The published numbers beside the measured ones"
    script:
        "../workflow/scripts/paper_vs_ours.py"
