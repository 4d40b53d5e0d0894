"""Judge the answers of all plans by the judge's model: each distinct one once, and those judged before not again."""

import logging
from pathlib import Path

import pandas as pd

import safetyheads.jobs.startup  # noqa: F401 - first, as its docstring says
from safetyheads.artifacts import files
from safetyheads.artifacts.parts import Parts
from safetyheads.config.load import Config
from safetyheads.jobs.judged_before import before, determining, remembered
from safetyheads.jobs.loaded_judge import judge_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.judges.model_judge import judge_all
from safetyheads.judges.texts import sha256_of_text

log = logging.getLogger(__name__)
KEYS = ["query_id", "text_sha256"]

with logged(snakemake.log[0]):
    output, old = Path(snakemake.output.judged), Path(snakemake.output.known)
    settings, params = Config.model_validate(snakemake.config), snakemake.params
    inputs, name = snakemake.input, snakemake.wildcards.judge
    sources, prefill = [Path(inputs.queries), Path(inputs.prompts)], params.template.get("prefill", "")
    queries = files.read(sources[0], ["query_id", "query"])
    prompts = files.read(sources[1], ["query_id", "text"]).rename(columns={"text": "prompt"})
    said = pd.concat([files.read(Path(path), ["query_id", "text"]) for path in inputs.completions]).drop_duplicates()
    answers = said.merge(queries).merge(prompts).assign(prefill=prefill)
    answers["text_sha256"] = answers["text"].map(sha256_of_text)
    determined = determining(params, files.read_json(inputs.judge), settings) | {"template": dict(params.template)}
    words = queries.set_index("query_id")["query"].to_dict()
    known, earlier = before(old, determined, words)
    new = answers[~pd.MultiIndex.from_frame(answers[KEYS]).isin(pd.MultiIndex.from_frame(known[KEYS]))]
    log.info(
        "Of %d distinct answers, %d are in the old file, %d are left.", len(answers), len(answers) - len(new), len(new)
    )
    if len(new):
        judge, model = judge_of(settings, name, Path(inputs.judge), dtype=params.dtype)
        parts = Parts(output, determined)
        found = new[KEYS].join(judge_all(judge, new, settings.compute.token_budget, parts))
        rows = (pd.concat([known, found]) if len(known) else found).sort_values(KEYS, ignore_index=True)
        record = record_of(params, settings.results, inputs=sources, model=model)
        record |= remembered(record, earlier, determined, words)
        files.write("judged", output, rows, dict(snakemake.wildcards), record)
        files.copy(output, old)
        parts.remove()
    else:
        files.copy(old, output)  # nothing is new, so there is nothing to load a model for
        old.touch()
