from pathlib import Path

from safetyheads.jobs.judge_cells import JudgeCells

KNOWN = str(Path(PATHS["judged"]).with_name(".{template}.known"))
judge_cells = JudgeCells(cells)
judge_source = asked(settings.judge_source, "judge")
judge_content = asked(judge_cells.judge_content, "judge")
judged_by = asked(settings.judged_by, "judge")
judged_inputs = asked(
    judge_cells.judged_inputs, "judge", "model", "dataset", "template"
)
to_judge_inputs = asked(judge_cells.to_judge_inputs, "judge")
labelled_inputs = asked(judge_cells.labelled_inputs, "judge")
judge_settings = asked(
    lambda judge: settings.judged_by(judge) or settings.verdicts_by(judge), "judge"
)
judge_gpus = asked(
    lambda judge: requests.judge_gpus(judge, on_gpu=jobs_on_gpu()), "judge"
)
judge_dtype = asked(
    lambda judge: requests.judge_dtype(judge, on_gpu=jobs_on_gpu()), "judge"
)


localrules:
    judges,
    to_judge_file,


rule judges:
    output:
        PATHS["judges"],
    log:
        "<results>/logs/judges/{judge}.log",
    conda:
        ENVIRONMENT
    params:
        judge=judge_source,
        content=judge_content,
        code=code("judges"),
    message:
        "Fetch, check and describe the model of judge {wildcards.judge}"
    script:
        "../workflow/scripts/judges.py"


# `known` is what was judged before: it is kept for the job, which judges only what is new, and told by its record. The
# verdicts of a job are another file: Snakemake takes a kept file for whole also after the job has failed.
rule judged:
    input:
        judge=PATHS["judges"],
        queries=PATHS["datasets"],
        prompts=PATHS["prompts"],
        completions=judged_inputs,
    output:
        judged=PATHS["judged"],
        known=update(KNOWN),
    log:
        "<results>/logs/judged/{judge}/{model}/{dataset}/{template}.log",
    benchmark:
        "<results>/benchmarks/judged/{judge}/{model}/{dataset}/{template}.jsonl"
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    resources:
        gpu=judge_gpus,
        mem_mb=memory,
        runtime=runtime,
    params:
        judge=judged_by,
        template=given("template", "prefill"),
        dtype=judge_dtype,
        code=code("judged"),
    message:
        "Judged by {wildcards.judge}: {wildcards.model}, {wildcards.dataset} ({wildcards.template})"
    script:
        "../workflow/scripts/judged.py"


rule to_judge_file:
    input:
        unpack(to_judge_inputs),
    output:
        PATHS["to_judge"],
    log:
        "<results>/logs/to_judge/{judge}.log",
    conda:
        ENVIRONMENT
    params:
        content=asked(judge_cells.to_judge_content, "judge"),
        code=code("to_judge"),
    message:
        "What {wildcards.judge} has no verdict on"
    script:
        "../workflow/scripts/to_judge.py"


rule labelled:
    input:
        unpack(labelled_inputs),
    output:
        PATHS["labelled"],
    log:
        "<results>/logs/labelled/{judge}.log",
    benchmark:
        "<results>/benchmarks/labelled/{judge}.jsonl"
    wildcard_constraints:
        judge=judge_cells.pattern(needs_model=False),
    conda:
        ENVIRONMENT
    threads: settings.compute.threads
    params:
        judge=judge_settings,
        labels=asked(settings.labels_by, "judge"),
        content=asked(judge_cells.labels_content, "judge"),
        verdicts=asked(judge_cells.verdict_content, "judge"),
        dtype=judge_dtype,
        code=code("labelled"),
    message:
        "{wildcards.judge} on the answers that people labelled"
    script:
        "../workflow/scripts/labelled.py"


use rule labelled as labelled_by_model with:
    wildcard_constraints:
        judge=judge_cells.pattern(needs_model=True),
    resources:
        gpu=judge_gpus,
        mem_mb=memory,
        runtime=runtime,
