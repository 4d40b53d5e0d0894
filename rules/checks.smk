# What needs a checked model takes this file as `ancient`: a check in other words, or of more, makes no score again.
rule checks:
    input:
        model=PATHS["models"],
    output:
        PATHS["checks"],
    log:
        "<results>/logs/checks/{model}.log",
    benchmark:
        "<results>/benchmarks/checks/{model}.jsonl"
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
        device=kind_of_device,
        code=code("checks"),
    message:
        "Check model {wildcards.model} on this device"
    script:
        "../workflow/scripts/checks.py"
