rule attention:
    input:
        model=PATHS["models"],
        prompts=PATHS["prompts"],
        queries=PATHS["datasets"],
        checks=checks_of,
    output:
        PATHS["attention"],
    log:
        "<results>/logs/attention/{model}/{dataset}/{template}.log",
    benchmark:
        "<results>/benchmarks/attention/{model}/{dataset}/{template}.jsonl"
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    resources:
        gpu=gpus,
        mem_mb=memory,
        runtime=runtime,
    params:
        model=given("model", "attention"),
        dtype=dtype,
        code=code("attention"),
    message:
        "Attention to the query: {wildcards.model}, {wildcards.dataset} ({wildcards.template})"
    script:
        "../workflow/scripts/attention.py"


rule attacks:
    input:
        ships=cells.paths("ships", [cell for _, cell in cells.attacked()]),
        attention=cells.paths("attention", [cell for _, cell in cells.attacked()]),
    output:
        PATHS["attacks"],
    log:
        "<results>/logs/attacks.log",
    benchmark:
        "<results>/benchmarks/attacks.jsonl"
    conda:
        ENVIRONMENT
    params:
        attacked=sorted({one for one, _ in cells.attacked()}),
        code=code("attacks"),
    message:
        "What attack templates change of each head"
    script:
        "../workflow/scripts/attacks.py"
