"""Judge the answers that people have labelled, and put both words side by side."""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.config.load import Config
from safetyheads.jobs.judged_before import determining
from safetyheads.jobs.labels_of import labels_file, labels_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.judges.declared import from_config
from safetyheads.models.download import sha256_of

with logged(snakemake.log[0]):
    output, settings, params = Path(snakemake.output[0]), Config.model_validate(snakemake.config), snakemake.params
    name, inputs = snakemake.wildcards.judge, snakemake.input
    downloaded = Path(inputs.labels) if hasattr(inputs, "labels") else None
    labels = labels_of(settings, name, downloaded)
    answers = labels[["query", "text"]].assign(prefill="", prompt=labels["query"])
    if hasattr(inputs, "judge"):
        from safetyheads.jobs.loaded_judge import judge_of
        from safetyheads.judges.model_judge import judge_all

        judge, model = judge_of(settings, name, Path(inputs.judge), dtype=params.dtype)
        record = record_of(params, settings.results, model=model)
        parts = Parts(output, determining(params, files.read_json(inputs.judge), settings))
        said = judge_all(judge, answers, settings.compute.token_budget, parts)
    else:
        record, parts = record_of(params, settings.results), Parts(output)
        said = from_config(**params.judge).judge(answers)
    rows = labels.rename(columns={"harmful": "label"}).assign(judged=said["harmful"])
    record["labels_sha256"] = sha256_of(labels_file(settings, name, downloaded))
    files.write("labelled", output, rows, dict(snakemake.wildcards), record)
    parts.remove()
