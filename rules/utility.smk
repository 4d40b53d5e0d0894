localrules:
    utility_tasks,


# On a cluster this job has the network, and leaves the data of the tasks in the cache of Hugging Face.
rule utility_tasks:
    output:
        PATHS["utility_tasks"],
    log:
        "<results>/logs/utility_tasks.log",
    conda:
        ENVIRONMENT
    params:
        tasks=settings.utility.tasks,
        content=lambda wildcards: cells.task_content(),
        code=code("utility_tasks"),
    message:
        "Fetch the tasks"
    script:
        "../workflow/scripts/utility_tasks.py"


rule utility:
    input:
        unpack(utility_inputs),
        checks=checks_of,
        tasks=PATHS["utility_tasks"],
    output:
        PATHS["utility"],
    log:
        "<results>/logs/utility/{model}/{dataset}/{template}/{ablation}/{plan}.log",
    benchmark:
        "<results>/benchmarks/utility/{model}/{dataset}/{template}/{ablation}/{plan}.jsonl"
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
        model=given("model", "attention"),
        tasks=settings.utility.tasks,
        limit=settings.utility.limit,
        content=lambda wildcards: cells.task_content(),
        dtype=dtype,
        code=code("utility"),
    message:
        "Accuracy on tasks: {wildcards.model}, {wildcards.ablation} of {wildcards.plan} ({wildcards.dataset})"
    script:
        "../workflow/scripts/utility.py"
