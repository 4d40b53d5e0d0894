rule sahara:
    input:
        model=MODEL,
        prompts=PROMPTS,
    output:
        SAHARA,
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
        ablation=ablation_params,
        attention=attention,
        attribution=attribution_params(),
        dtype=dtype,
        code=code("sahara"),
    message:
        "Sahara: {wildcards.model}, {wildcards.dataset} ({wildcards.template}, {wildcards.ablation})"
    script:
        "../workflow/scripts/sahara.py"
