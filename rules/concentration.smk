rule concentration:
    input:
        unpack(
            lambda wildcards: {
                name: path
                for name, path in cells.measured().items()
                if name in ("rates", "maps_by_head")
            }
        ),
        **cells.score_paths(),
    output:
        concentration=PATHS["concentration"],
        stability=PATHS["stability"],
    log:
        "<results>/logs/concentration.log",
    benchmark:
        "<results>/benchmarks/concentration.jsonl"
    conda:
        ENVIRONMENT
    params:
        choices=cells.choices(),
        methods=cells.methods(),
        code=code("concentration"),
    message:
        "Concentration and stability of the heads that are chosen"
    script:
        "../workflow/scripts/concentration.py"
