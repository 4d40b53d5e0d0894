localrules:
    datasets_download,


rule datasets_download:
    output:
        DOWNLOAD,
    log:
        "<results>/logs/datasets_download/{dataset}.log",
    conda:
        ENVIRONMENT
    params:
        source=given("dataset", "url", "repo", "revision", "file", "sha256"),
        code=code("datasets_download"),
    message:
        "Download data set {wildcards.dataset}"
    script:
        "../workflow/scripts/datasets_download.py"


rule datasets:
    input:
        dataset_source,
    output:
        PATHS["datasets"],
    log:
        "<results>/logs/datasets/{dataset}.log",
    benchmark:
        "<results>/benchmarks/datasets/{dataset}.jsonl"
    conda:
        ENVIRONMENT
    params:
        dataset=given(
            "dataset",
            "demo",
            "sha256",
            "format",
            "query",
            "category",
            "target",
            "limit",
            "sample",
            "half",
        ),
        content=dataset_content,
        code=code("datasets"),
    message:
        "Read data set {wildcards.dataset}"
    script:
        "../workflow/scripts/datasets.py"
