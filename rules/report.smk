rule report:
    input:
        unpack(lambda wildcards: cells.measured()),
        ships=cells.paths("ships", cells.scored("ships")),
        sahara=cells.paths("sahara", cells.scored("sahara")),
        models=cells.paths("models", [*cells.all, *cells.scored("ships")]),
        checks=cells.paths("checks", [*cells.all, *cells.scored("ships")]),
        datasets=cells.paths(
            "datasets",
            [
                *cells.all,
                *(cell.attributed for cell in cells.all),
                *cells.scored("ships"),
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
        benign=settings.benign(),
        contrasts=[[*of, *less] for of, less in cells.contrasts().items()],
        report=settings.report.plain(),
        studies={name: study.plain() for name, study in settings.studies.items()},
        code=code("report"),
    message:
        "Report"
    script:
        "../workflow/scripts/report.py"
