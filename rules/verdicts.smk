rule verdicts:
    input:
        unpack(verdict_inputs),
    output:
        PATHS["verdicts"],
    log:
        "<results>/logs/verdicts/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}/{judge}.log",
    benchmark:
        "<results>/benchmarks/verdicts/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}/{judge}.jsonl"
    conda:
        ENVIRONMENT
    params:
        judge=asked(settings.verdicts_by, "judge"),
        content=asked(judge_cells.verdict_content, "judge"),
        thinking=thinking,
        openings=settings.attribution.openings,
        code=code("verdicts"),
    message:
        "Verdicts of {wildcards.judge}: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
        "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}"
    script:
        "../workflow/scripts/verdicts.py"
