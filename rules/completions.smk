rule completions:
    input:
        unpack(completion_inputs),
        checks=checks_of,
    output:
        PATHS["completions"],
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
        ablation=given("ablation"),
        plan=heads_of_plan,
        decoding=given("decoding"),
        model=given("model", "attention"),
        dtype=dtype,
        code=code("completions"),
    message:
        "Completions: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
        "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}"
    script:
        "../workflow/scripts/completions.py"


# With `compute: shards:`, several jobs share the batches of a cell, and another job puts their shards together. That
# job only reads and writes. So it has no fingerprint among its params, and a change of its code does not make the
# completions again.
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
            PATHS["completions"],
        log:
            "<results>/logs/completions_merged/{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}.log",
        wildcard_constraints:
            model=requests.models_of_several_shards(cells, NAME),
        conda:
            ENVIRONMENT
        message:
            "Put together: {wildcards.model}, {wildcards.dataset} ({wildcards.template}), "
            "{wildcards.ablation} of {wildcards.plan}, {wildcards.decoding}"
        script:
            "../workflow/scripts/completions_merged.py"
