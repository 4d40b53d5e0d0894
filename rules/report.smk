rule report:
    input:
        unpack(lambda wildcards: cells.measured()),
        **cells.score_paths(),
        numbers=[made[0] for made in experiment_cells.paths().values()],
        figures=[made[-1] for made in experiment_cells.paths().values()],
        models=cells.paths("models", [*cells.all, *cells.with_scores()]),
        checks=cells.paths("checks", [*cells.all, *cells.with_scores()]),
        datasets=cells.paths(
            "datasets",
            [
                *cells.all,
                *(cell.attributed for cell in cells.all),
                *cells.with_scores(),
            ],
        ),
    output:
        report(
            PATHS["report"],
            caption="../workflow/report/page.rst",
            category="SafetyHeads",
        ),
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.jsonl"
    conda:
        ENVIRONMENT
    params:
        experiments=[
            [name, settings.studies[name].experiment]
            for name in experiment_cells.paths()
        ],
        benign=settings.benign(),
        contrasts=[[*of, *less] for of, less in cells.contrasts().items()],
        methods=cells.methods(),
        report=settings.report.plain(),
        studies={name: study.plain() for name, study in settings.studies.items()},
        code=code("report"),
    message:
        "Report"
    script:
        "../workflow/scripts/report.py"
