rule completions:
    input:
        unpack(completion_inputs),
    output:
        COMPLETIONS,
    log:
        "<results>/logs/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.log",
    benchmark:
        "<results>/benchmarks/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.jsonl"
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    resources:
        gpu=gpus,
        mem_mb=memory,
        runtime=runtime,
    params:
        ablation=ablation_params,
        heads=plan_heads,
        random=plan_random,
        decoding=decoding_params,
        attention=attention,
        dtype=dtype,
        code=code("completions"),
    message:
        "Completions: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
        "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}"
    script:
        "../workflow/scripts/completions.py"


# With `compute: shards:`, the batches of a cell are made by several jobs and then put together.
if settings.compute.shards != 1:

    ruleorder: completions_merged > completions

    use rule completions as completions_part with:
        output:
            temp(SHARD),
        log:
            "<results>/logs/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.{shard}-of-{shards}.log",
        benchmark:
            "<results>/benchmarks/completions/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.{shard}-of-{shards}.jsonl"
        message:
            "Completions: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
            "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}, "
            "shard {wildcards.shard}-of-{wildcards.shards}"

    rule completions_merged:
        input:
            shard_paths,
        output:
            COMPLETIONS,
        log:
            "<results>/logs/completions_merged/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.log",
        wildcard_constraints:
            model=models_of_several_shards(),
        conda:
            ENVIRONMENT
        params:
            code=code("completions_merged"),
        message:
            "Put together: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
            "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}"
        script:
            "../workflow/scripts/completions_merged.py"
