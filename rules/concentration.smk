rule concentration:
    input:
        unpack(
            lambda wildcards: {
                name: path
                for name, path in cells.measured().items()
                if name in ("rates", "maps_by_head")
            }
        ),
        ships=cells.paths("ships", cells.scored("ships")),
        sahara=cells.paths("sahara", cells.scored("sahara")),
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
        code=code("concentration"),
    message:
        "Concentration and stability of the heads that are chosen"
    script:
        "../workflow/scripts/concentration.py"
