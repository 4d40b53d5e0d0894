ships_inputs = asked_paths(lambda model: cells.scores_inputs("ships", model), "model")


rule ships:
    input:
        unpack(ships_inputs),
        checks=checks_of,
    output:
        PATHS["ships"],
    log:
        "<results>/logs/ships/{model}/{dataset}/{template}/{ablation}.log",
    benchmark:
        "<results>/benchmarks/ships/{model}/{dataset}/{template}/{ablation}.jsonl"
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
        attribution=settings.attribution.of("ships"),
        dtype=dtype,
        code=code("ships"),
    message:
        "Ships: {wildcards.model}, {wildcards.dataset} ({wildcards.template}, {wildcards.ablation})"
    script:
        "../workflow/scripts/ships.py"
