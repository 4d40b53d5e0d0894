from safetyheads.methods import METHODS, OWN_STAGES

# The methods beside Ships and Sahara: a rule for each, so that a change of one makes no scores of another again.
for method, of in METHODS.items():
    if of.scores in OWN_STAGES:
        continue

    rule:
        name:
            f"scores_{method}"
        input:
            unpack(scores_inputs),
            checks=checks_of,
        output:
            PATHS["scores"],
        log:
            "<results>/logs/scores/{method}/{model}/{dataset}/{template}/{ablation}.log",
        benchmark:
            "<results>/benchmarks/scores/{method}/{model}/{dataset}/{template}/{ablation}.jsonl"
        wildcard_constraints:
            method=method,
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
            attribution=settings.attribution.of(method),
            dtype=dtype,
            code=code(method),
        message:
            "{wildcards.method}: {wildcards.model}, {wildcards.dataset} ({wildcards.template}, {wildcards.ablation})"
        script:
            "../workflow/scripts/{wildcards.method}.py"
