localrules:
    checks_shown,


# A check that runs again makes all scores and completions of its model again. So it depends on nothing that they do not
# depend on: how checks are made counts in no fingerprint (it "only refuses"), and the kind of device is seen by the jobs
# themselves. To let them take the file as `ancient` would not do: Snakemake overlooks what else has changed for a job
# behind an ancient file that is made again. Number format and attention are in the path, so that settings that fail and
# are taken back cost nothing.
rule checks:
    input:
        model=PATHS["models"],
    output:
        CHECKED,
    log:
        "<results>/logs/checks/{model}/{dtype}-{attention}.log",
    benchmark:
        "<results>/benchmarks/checks/{model}/{dtype}-{attention}.jsonl"
    wildcard_constraints:
        dtype=r"\w+",
        attention=r"\w+",
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    resources:
        gpu=gpus,
        mem_mb=memory,
        runtime=runtime,
    params:
        code=code("checks"),
    message:
        "Check model {wildcards.model} on this device ({wildcards.dtype}, attention {wildcards.attention})"
    script:
        "../workflow/scripts/checks.py"


# Where users look: the checks of the settings at hand.
rule checks_shown:
    input:
        checks_of,
    output:
        PATHS["checks"],
    log:
        "<results>/logs/checks_shown/{model}.log",
    conda:
        ENVIRONMENT
    message:
        "Checks of {wildcards.model}"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"
