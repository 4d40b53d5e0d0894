localrules:
    annotation,


# Made on request alone, by this rule's name: the page shows completions, which may be harmful.
rule annotation:
    input:
        verdicts=cells.paths("verdicts"),
        completions=cells.paths("completions"),
        datasets=cells.paths("datasets"),
    output:
        sample=PATHS["annotation"],
        page=PATHS["annotation_page"],
    log:
        "<results>/logs/annotation.log",
    benchmark:
        "<results>/benchmarks/annotation.jsonl"
    conda:
        ENVIRONMENT
    params:
        annotation=settings.annotation.plain(),
        code=code("annotation"),
    message:
        "Sample of answers for people to label"
    script:
        "../workflow/scripts/annotation.py"
