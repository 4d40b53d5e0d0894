# All come after the rates, which refuse to compare cells that were made under different conditions.
rule effects:
    input:
        PATHS["rates"],
        verdicts=cells.paths("verdicts"),
        completions=cells.paths("completions", cells.with_effects()),
        datasets=cells.paths(
            "datasets", [*cells.all, *(cell.attributed for cell in cells.all)]
        ),
        labelled=cells.labelled(),
    output:
        effects=report(
            PATHS["effects"],
            caption="../workflow/report/effects.rst",
            category="SafetyHeads",
        ),
        by_category=PATHS["effects_by_category"],
    log:
        "<results>/logs/effects.log",
    benchmark:
        "<results>/benchmarks/effects.jsonl"
    conda:
        ENVIRONMENT
    params:
        benign=settings.benign(),
        drop_leaks=cells.drop_leaks(),
        code=code("effects"),
    message:
        "Effects beside their controls"
    script:
        "../workflow/scripts/effects.py"


rule noise:
    input:
        PATHS["rates"],
        verdicts=cells.paths("verdicts"),
        completions=cells.paths("completions", cells.with_plain_rows()),
    output:
        PATHS["noise"],
    log:
        "<results>/logs/noise.log",
    benchmark:
        "<results>/benchmarks/noise.jsonl"
    conda:
        ENVIRONMENT
    params:
        code=code("noise"),
    message:
        "Noise between batches"
    script:
        "../workflow/scripts/noise.py"


rule maps:
    input:
        PATHS["rates"],
        verdicts=cells.paths("verdicts", cells.maps()),
    output:
        maps=PATHS["maps"],
        by_head=PATHS["maps_by_head"],
    log:
        "<results>/logs/maps.log",
    benchmark:
        "<results>/benchmarks/maps.jsonl"
    conda:
        ENVIRONMENT
    params:
        code=code("maps"),
    message:
        "Maps of single heads beside chance"
    script:
        "../workflow/scripts/maps.py"
