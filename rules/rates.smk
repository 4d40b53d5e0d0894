rule rates:
    input:
        verdicts=cells.paths("verdicts"),
        labelled=cells.labelled(),
    output:
        report(
            PATHS["rates"],
            caption="../workflow/report/rates.rst",
            category="SafetyHeads",
        ),
    log:
        "<results>/logs/rates.log",
    benchmark:
        "<results>/benchmarks/rates.jsonl"
    conda:
        ENVIRONMENT
    params:
        mixed=settings.compute.mixed,
        code=code("rates"),
    message:
        "Attack success rates"
    script:
        "../workflow/scripts/rates.py"
