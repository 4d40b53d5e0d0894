# A check that runs again makes all scores and completions of its model again. So it depends on nothing that they do not
# depend on: how checks are made counts in no fingerprint (it "only refuses"), and the kind of device is seen by the jobs
# themselves. To take the file as `ancient` would not do: Snakemake then overlooks what else has changed for those jobs.
# With `update`, a check that fails leaves the file of the last settings that passed.
rule checks:
    input:
        model=PATHS["models"],
    output:
        update(PATHS["checks"]),
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
