localrules:
    models,


rule models_train:
    output:
        directory(WEIGHTS),
    log:
        "<results>/logs/models_train/{model}.log",
    benchmark:
        "<results>/benchmarks/models_train/{model}.jsonl"
    wildcard_constraints:
        model=r"[A-Za-z0-9][^/]*(?<!\.json)",
    conda:
        ENVIRONMENT
    params:
        model=given("model", "demo"),
        code=code("models_train"),
    message:
        "Train the demo model {wildcards.model}, with planted heads"
    script:
        "../workflow/scripts/models_train.py"


rule models:
    input:
        model_source,
    output:
        PATHS["models"],
    log:
        "<results>/logs/models/{model}.log",
    benchmark:
        "<results>/benchmarks/models/{model}.jsonl"
    conda:
        ENVIRONMENT
    params:
        model=given("model", "repo", "revision", "demo", "attention_from", "rest_from"),
        content=model_content,
        code=code("models"),
    message:
        "Fetch, check and describe model {wildcards.model}"
    script:
        "../workflow/scripts/models.py"
