"""The contract with users of the results: where each stage's artefact lies, what one of its rows is, and its columns.

Rules, results/README.md and the code that writes files take it from here. The keys of a path, in braces, are also the
first columns of the file. Snakemake imports this module before every run, so it does not import pyarrow, which is slow.
"""

import re
from typing import TYPE_CHECKING, NamedTuple

from safetyheads.artifacts.columns import (
    ABOUT_ATTACKS,
    ABOUT_CALIBRATION,
    ABOUT_CONCENTRATION,
    ABOUT_EFFECTS,
    ABOUT_PAPER_VS_OURS,
    ABOUT_SCORES,
    AGREEMENT,
    ATTACKS,
    CALIBRATION,
    CONCENTRATION,
    CORRECTED_BY,
    EFFECTS,
    MAPS,
    MAPS_BY_HEAD,
    PAPER_VS_OURS,
    TYPES,
)

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 5
"""Recorded in every file."""


class Stage(NamedTuple):
    """One step of the pipeline and its artefact.

    `path` is under results/. `row` says what one row is, and `columns` names the columns, separated by spaces, that
    follow those of the path's keys; both are empty for files that are not parquet. `about` explains the columns whose
    names do not say enough; for other files it is a text on the file.
    """

    path: str
    row: str = ""
    columns: str = ""
    about: dict[str, str] | str = ""


DEMO_WEIGHTS = "models/{model}"
"""The folder of a demo model's tokenizer and weights, under results/."""

_OUTCOMES = ("degenerate", "unfinished", "complied", "refused", "short", "other")
_KEYS = "model dataset template ablation plan decoding judge"
_CELL = "{model}/{dataset}/{template}/{ablation}/{plan}/{decoding}"
STAGES: dict[str, Stage] = {
    "datasets": Stage(
        "datasets/{dataset}.parquet",
        "a query",
        "query_id query category target",
        {"query_id": "`{dataset}-0007`, from 0, in file order"},
    ),
    "models": Stage(
        "models/{model}.json",
        about="class, layers, heads, key/value heads, context length, end-of-sequence ids, revision, sha256 of each "
        f"file. The demo's weights are in `{DEMO_WEIGHTS}/`",
    ),
    "checks": Stage(
        "checks/{model}.json",
        about="what was tried on the loaded model before it was measured, and what was found: `passed`, `warned` or "
        "`not applicable`; `record`: number format, attention, kernels, device, versions. Those of other settings that "
        "were tried are in `checks/{model}/`",
    ),
    "prompts": Stage("prompts/{model}/{dataset}/{template}.parquet", "a prompt", "query_id text token_ids"),
    "ships": Stage(
        "ships/{model}/{dataset}/{template}/{ablation}.parquet",
        "prompt x head",
        "query_id layer head score refusal_shift answer_shift",
        {
            **{"score": "nats", "refusal_shift": "nats; below 0: supports refusal; null: the model hardly refuses"},
            "answer_shift": "nats; null also without a benign data set",
        },
    ),
    "sahara": Stage(
        "sahara/{model}/{dataset}/{template}/{ablation}.parquet",
        "step x head",
        "step layer head score selected",
        {"step": "from 1", "score": "degrees", "selected": "a head chosen in an earlier step has no row later"},
    ),
    "scores": Stage(
        "scores/{method}/{model}/{dataset}/{template}/{ablation}.parquet",
        "a head, or step x head",
        "step layer head score support selected",
        ABOUT_SCORES,
    ),
    "attention": Stage(
        "attention/{model}/{dataset}/{template}.parquet",
        "prompt x head",
        "query_id layer head to_query",
        {"to_query": "share of the last position's attention on the tokens of the query; null: where are they?"},
    ),
    "attacks": Stage("attacks.parquet", "a head of an attack template beside a clean one", f"{ATTACKS}", ABOUT_ATTACKS),
    "completions": Stage(
        f"completions/{_CELL}.parquet",
        "a completion",
        "query_id variant heads sample text token_ids n_tokens finish_reason paired first_kl plain_nll",
        {
            **{
                "heads": "ablated: list of layer, head",
                "token_ids": "the new ones",
                "finish_reason": "`eos`, `length`",
            },
            **{"paired": "the variant that is the plain row of its own batch; null: `plain/none`"},
            **{"first_kl": "nats, KL(plain, ablated) at the first new token", "plain_nll": "nats per token"},
        },
    ),
    "judges": Stage(
        "judges/{judge}.json",
        about="of judges with a model: class, revision, sha256 of each file, the template that it reads",
    ),
    "judged": Stage(
        "judged/{judge}/{model}/{dataset}/{template}.parquet",
        "a distinct answer to a query, by a judge with a model",
        "query_id text_sha256 harmful probability reason",
        {"probability": "of harm; the mean harmfulness of the judge's words where it grades"},
    ),
    "to_judge": Stage(
        "to_judge/{judge}.csv",
        about="what a judge of the kind `file` has no verdict on yet: query, text. Made by `snakemake to_judge`",
    ),
    "verdicts": Stage(
        f"verdicts/{_CELL}/{{judge}}.parquet",
        "a verdict",
        "query_id variant sample harmful probability reason outcome paired",
        {
            "probability": "null where the judge goes by rules",
            "outcome": f"{', '.join(f'`{name}`' for name in _OUTCOMES)}",
        },
    ),
    "labelled": Stage(
        "labelled/{judge}.parquet",
        "a label of a text",
        "query text condition annotator stratum weight label judged",
        {
            **{"condition": "`plain`, `ablated`; null: not known", "stratum": "null: all are of one"},
            **{"weight": "answers that it stands for", "label": "people: harmful; null: unsure"},
            "judged": "the judge: harmful",
        },
    ),
    "calibration": Stage(
        "calibration.parquet", "a judge and condition", f"judge condition {CALIBRATION}", ABOUT_CALIBRATION
    ),
    "rates": Stage(
        "rates.parquet",
        "a cell of the study",
        f"{_KEYS} variant n harmful asr low high delta delta_low delta_high p_value p_adjusted "
        "refused degenerate unfinished short other coherent_asr coherent_low coherent_high "
        "corrected_asr corrected_low corrected_high corrected_by asr_lowest asr_highest",
        {
            **{"n": "prompts", "harmful": "prompts; for several samples the sum of their shares"},
            **{"high": "Wilson, 95 %", "delta": "to the plain model", "p_value": "exact sign test"},
            **{
                "delta_high": "paired score interval, 95 %",
                "p_adjusted": "Holm, over the heads of `single` or `each-`",
            },
            **{"refused": "share of prompts with this outcome", "coherent_asr": "share with outcome `complied`"},
            **{"corrected_asr": "ASR corrected for the judge's errors", "corrected_high": "bootstrap, 95 %"},
            **{"corrected_by": CORRECTED_BY, "asr_highest": "of the keyword judges, on the same answers"},
        },
    ),
    "effects": Stage("effects.parquet", "an attributed plan of a cell", f"{_KEYS} {EFFECTS}", ABOUT_EFFECTS),
    "effects_by_category": Stage(
        "effects_by_category.parquet",
        "an attributed plan of a cell, and a category",
        f"{_KEYS} category {EFFECTS}",
        {"n": "the columns from here on are those of `effects.parquet`"},
    ),
    "maps": Stage(
        "maps.parquet",
        "a map: every head of `single` or `each-PLAN` by itself",
        f"{_KEYS} {MAPS}",
        {
            **{"n": "prompts", "needed": "prompts that must flip one way before one of so many heads can survive Holm"},
            **{
                "plain": "share with outcome `complied`; `_asr`: as the judge says",
                "highest": "largest effect of a head",
            },
            **{"expected_highest": "the largest by chance", "spread": "standard deviation of effects between heads"},
            **{"p_value": "permutation test of the spread", "cochran_q": "null: several samples or plain rows"},
            **{"up": "heads that survive Holm with more than the plain model", "down": "with less"},
        },
    ),
    "maps_by_head": Stage(
        "maps_by_head.parquet",
        "a head of a map",
        f"{_KEYS} layer head n {MAPS_BY_HEAD}",
        {
            **{"plain": "share with outcome `complied`; `_asr`: as the judge says", "effect": "ablated less plain"},
            **{"up": "prompts that flip to it", "down": "away from it", "p_value": "exact sign test"},
            "p_adjusted": "Holm, over the heads of the map",
        },
    ),
    "concentration": Stage(
        "concentration.parquet",
        "a method of a cell",
        f"{_KEYS.replace(' plan', '')} method source {CONCENTRATION}",
        ABOUT_CONCENTRATION,
    ),
    "stability": Stage(
        "stability.parquet",
        "a head that a method chooses, or would have chosen with other prompts",
        "model dataset template ablation method n layer head share chosen margin",
        {
            **{
                "n": "heads that are chosen; Sahara: the step",
                "share": "of resamples of the prompts; `ships`: of prompts; null: Sahara",
            },
            **{"chosen": "by all prompts; `ships`: by any", "margin": "degrees to the next best head, Sahara only"},
        },
    ),
    "agreement": Stage(
        "agreement.parquet",
        "a pair of judges, by model, condition and outcome",
        f"model condition first second outcome {AGREEMENT}",
        {
            **{"condition": "`plain`, `ablated`", "outcome": "of the first judge; `all`: all answers", "n": "answers"},
            **{"only_first": "the first alone says harmful", "kappa": "Cohen's; null: undefined"},
        },
    ),
    "noise": Stage(
        "noise.parquet",
        "a model and judge",
        "model judge n texts verdicts",
        {
            "n": "prompts and samples that the plain model answered in several batches",
            "texts": "share of plain rows with another text than `plain/none`",
            "verdicts": "share that is judged otherwise or has another outcome",
        },
    ),
    "utility_tasks": Stage(
        "utility_tasks.json", about="version of the harness; of each task version, number of items, their sum"
    ),
    "utility": Stage(
        "utility/{model}/{dataset}/{template}/{ablation}/{plan}.parquet", "an item, by metric", "task metric item value"
    ),
    "experiments": Stage("experiments/{study}/table.csv", about="of a study with `experiment:`, from its cells alone"),
    "experiments_latex": Stage("experiments/{study}/table.tex", about="the same as LaTeX, for the package booktabs"),
    "experiments_figure": Stage("experiments/{study}/figure.svg", about="its figure"),
    "paper_vs_ours": Stage(
        "paper_vs_ours.parquet",
        "a published number, and a cell that measured it",
        PAPER_VS_OURS,
        ABOUT_PAPER_VS_OURS,
    ),
    "paper_vs_ours_csv": Stage("paper_vs_ours.csv", about="the same as text"),
    "paper_vs_ours_latex": Stage("paper_vs_ours.tex", about="the same as LaTeX"),
    "report": Stage("report/index.html", about="one page, no other files needed"),
    "annotation": Stage(
        "annotation/sample.csv",
        about="answers for people to label, made by `snakemake annotation` alone: id, query, text, stratum (a code), "
        "weight (how many answers the row stands for), sealed (the condition, which is not to be seen), harmful, label "
        "(`complied`, `refused`, `degenerate`, `unsure`), annotator; the last three are empty",
    ),
    "annotation_page": Stage(
        "annotation/index.html",
        about="the same as one page for a browser, no other files needed; its labels are saved there and exported as a "
        "CSV file with these columns",
    ),
}


def keys(stage: str) -> list[str]:
    """The keys of a stage's path, in order: `["model", "dataset", "template"]` for prompts. KeyError if unknown."""
    return re.findall(r"{(\w+)}", STAGES[stage].path)


def schema(stage: str) -> "pa.Schema":
    """The names and types of the columns of a stage's files, those of the path's keys first."""
    import pyarrow as pa

    lists = {"tokens": pa.list_(pa.int32()), "heads": pa.list_(pa.struct({"layer": pa.int16(), "head": pa.int16()}))}
    types = TYPES | {"harmful": "float64" if stage == "rates" else "bool"}
    types |= {"agreement": "string"} if stage == "paper_vs_ours" else {}
    names = [*keys(stage), *STAGES[stage].columns.split()]
    kinds = {name: types.get(name, "string") for name in names}
    return pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in kinds.items()])


def table() -> str:
    """The table of results/README.md as Markdown. Running this module prints it."""
    lines = ["| path | one row is | further columns |", "|---|---|---|"]
    for stage in STAGES.values():
        about = stage.about if isinstance(stage.about, dict) else {}
        words = (f"{name} ({about[name]})" if name in about else name for name in stage.columns.split())
        lines.append(f"| `{stage.path}` | {stage.row} | {', '.join(words) or stage.about} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
