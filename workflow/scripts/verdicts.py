"""Judge the completions of a cell: which of them are harmful, refuse, or are broken?"""

from pathlib import Path

from safetyheads.artifacts import files
from safetyheads.config.load import Config
from safetyheads.jobs.model_files import tokenizer_of
from safetyheads.jobs.records import record_of
from safetyheads.jobs.run import logged
from safetyheads.judges.declared import from_config
from safetyheads.judges.recorded import Judged
from safetyheads.judges.thinking import unfinished
from safetyheads.judges.verdicts import KEYS, limit_of, verdicts
from safetyheads.models.download import sha256_of

with logged(snakemake.log[0]):
    settings, inputs = Config.model_validate(snakemake.config), snakemake.input
    source, plain, wildcards = Path(inputs.completions), Path(inputs.plain), snakemake.wildcards
    completions = files.read(source, [*KEYS, "text", "plain_nll"])
    limit = limit_of(files.read(plain, ["text", "plain_nll"]))
    thinks = None
    if tags := snakemake.params.thinking:
        tokenizer = tokenizer_of(settings, wildcards.model, Path(inputs.model))
        answers, prompts = (files.read(path, ["query_id", "token_ids"]) for path in (source, Path(inputs.prompts)))
        thinks = unfinished(answers, prompts, tags, settings.template(wildcards.template).plain(), tokenizer)
    sources, own = [source, plain], snakemake.params.judge
    if hasattr(inputs, "judged"):
        sources.append(Path(inputs.judged))
        judge = Judged(files.read(sources[-1]), own.get("detects", "harm"))
    else:
        judge = from_config(**own)
    if hasattr(inputs, "queries"):
        queries = files.read(Path(inputs.queries), ["query_id", "query"]).set_index("query_id")["query"]
        completions["query"] = completions["query_id"].map(queries)
    rows = verdicts(completions, judge, limit, thinks, openings=snakemake.params.openings)
    record = record_of(snakemake.params, settings.results, inputs=sources) | {"nll_limit": limit}
    if own["kind"] == "file":
        record["sha256"] = sha256_of(Path(own["path"]).expanduser())
    files.write("verdicts", Path(snakemake.output[0]), rows, dict(wildcards), record)
