localrules:
    calibration,


rule calibration:
    input:
        cells.labelled(),
    output:
        PATHS["calibration"],
    log:
        "<results>/logs/calibration.log",
    benchmark:
        "<results>/benchmarks/calibration.jsonl"
    conda:
        ENVIRONMENT
    params:
        code=code("calibration"),
    message:
        "Judges against people's labels"
    script:
        "../workflow/scripts/calibration.py"


# It comes after the rates, which refuse to compare cells that were made under different conditions.
rule agreement:
    input:
        PATHS["rates"],
        verdicts=cells.paths("verdicts", cells.by_several_judges()),
    output:
        PATHS["agreement"],
    log:
        "<results>/logs/agreement.log",
    benchmark:
        "<results>/benchmarks/agreement.jsonl"
    conda:
        ENVIRONMENT
    params:
        code=code("agreement"),
    message:
        "Judges beside each other"
    script:
        "../workflow/scripts/agreement.py"
