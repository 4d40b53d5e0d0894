rule sahara:
    input:
        model=PATHS["models"],
        prompts=PATHS["prompts"],
        checks=checks_of,
    output:
        PATHS["sahara"],
    log:
        "<results>/logs/sahara/{model}/{dataset}/{template}/{ablation}.log",
    benchmark:
        "<results>/benchmarks/sahara/{model}/{dataset}/{template}/{ablation}.jsonl"
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    resources:
        gpu=gpus,
        mem_mb=memory,
        runtime=runtime,
    params:
        ablation=given("ablation"),
        model=given("model", "attention"),
        attribution=settings.attribution.of("sahara"),
        dtype=dtype,
        code=code("sahara"),
    message:
        "Sahara: {wildcards.model}, {wildcards.dataset} ({wildcards.template}, {wildcards.ablation})"
    script:
        "../workflow/scripts/sahara.py"
