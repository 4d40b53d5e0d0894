rule prompts:
    input:
        model=PATHS["models"],
        dataset=PATHS["datasets"],
    output:
        PATHS["prompts"],
    log:
        "<results>/logs/prompts/{model}/{dataset}/{template}.log",
    benchmark:
        "<results>/benchmarks/prompts/{model}/{dataset}/{template}.jsonl"
    conda:
        ENVIRONMENT
    params:
        template=given("template"),
        chat_template=chat_template,
        code=code("prompts"),
    message:
        "Tokenise {wildcards.dataset} for {wildcards.model} ({wildcards.template})"
    script:
        "../workflow/scripts/prompts.py"
