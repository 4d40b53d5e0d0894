# A check that runs again makes all scores and completions of its model again. So it depends on nothing that they do not
# depend on: how checks are made counts in no fingerprint (it "only refuses"), and the kind of device is seen by the jobs
# themselves. To let them take the file as `ancient` would not do: Snakemake overlooks what else has changed for a job
# behind an ancient file that is made again. Nor would `update`: after a failure it keeps a file of other settings.
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
        code=code("checks"),
    message:
        "Check model {wildcards.model} on this device"
    script:
        "../workflow/scripts/checks.py"
