"""config/README.md and config/schema.json, made from the classes of the configuration and from the catalogue.

python -m safetyheads.config.documentation            write both
python -m safetyheads.config.documentation --check    exit with status 1 if either is out of date
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import dedent, shorten
from typing import Any

from safetyheads.config.catalogue import BUILT_IN, CatalogueDataset, CatalogueModel, catalogue
from safetyheads.config.schema import json_schema
from safetyheads.config.sections import Section

FOLDER = Path(__file__).parents[3] / "config"

_INTRODUCTION = """
<!-- Made by `python -m safetyheads.config.documentation` from the classes of `safetyheads.config`. -->

# Configuration

Everything is named once, and `studies` say which combinations to run. `snakemake` takes `config/config.yaml`, the
demo; `snakemake --configfile my-study.yaml` takes yours *instead*: nothing is merged. A small one:

```yaml
models:
  mine: {path: /models/my-model}
datasets:
  requests: {path: requests.csv, query: request}
studies:
  main:
    models: [mine]
    datasets: [requests]
    templates: [simple]
    ablations: [undifferentiated]
    plans: [none, ships-1, sahara-3, random-3]
    decodings: [greedy]
    judges: [paper]
```

Every top-level key but `studies` may be left out. Relative paths start at the folder in which `snakemake` runs. Names
become file names: letters, digits, `.`, `_` and `-`, beginning with a letter or digit. Mistakes stop the run before any
job; all of them are listed at once, each with its key and what is allowed. What only a job can see stops that job: a
column that a data file does not have, another checksum, an address that is not there, `device: cuda` without a GPU.

Editors that know YAML schemas complete and check the file if its first line is
`# yaml-language-server: $schema=config/schema.json`.

Known without being declared, unless a declaration of the same name overrides it:

"""

_PLANS = """
## Plans

A plan says which heads are ablated while the model answers. The model without ablation (`none`) is always included.

| plan | heads |
|---|---|
| `none` | none |
| `ships-N` | each prompt's own N heads of highest Ships score |
| `sahara-N` | the group of N heads that Sahara chooses for the data set, N at most `attribution.steps` |
| `sahara-N@other` | the same, but chosen on the data set `other` |
| `single` | every head on its own: layers x heads variants |
| `random-N` | N random heads for all prompts, `random.draws` times: the control |
| a name in `head_sets` | those heads |
"""

_ABOUT = {
    "models": (
        """
        A language model: a local folder, a Hugging Face repository or the demo model. Only safetensors are loaded, and
        a repository's code is never run.
        """,
        """
        models:
          local: {path: /models/my-model, dtype: bfloat16}
          hub: {repo: mistralai/Mistral-7B-Instruct-v0.2, revision: 63a8b081895390a26e140280378bc85ec8bce07a}
          demo: {demo: {seed: 3, planted: [L00H02, L03H05]}}     # or {demo: true}
          mixed: {attention_from: llama-2-7b, rest_from: llama-2-7b-chat}
        """,
    ),
    "datasets": (
        "A list of queries: a local file, a download, a file of a Hugging Face repository, or a demo data set.",
        """
        datasets:
          table: {path: requests.csv, query: request, category: topic}
          lines: {path: requests.txt}
          web: {url: "https://example.org/requests.jsonl", query: text}
          hub: {repo: JailbreakBench/JBB-Behaviors, file: data/harmful-behaviors.csv, query: Goal}
        """,
    ),
    "templates": (
        "How a query becomes a prompt: a text with `{query}`, or the chat template of the model's tokenizer.",
        r"""
        templates:
          question: {text: "Question: {query}\nAnswer:"}
          polite: {chat: true, system: "You are a helpful assistant", prefill: "Sure, here is"}
        """,
    ),
    "ablations": (
        "What happens to an ablated head. The name `plain` is taken: it stands for the model without ablation.",
        """
        ablations:
          harder: {kind: scaling, epsilon: 1.0e-10}
        """,
    ),
    "decodings": (
        "How completions are generated. What is drawn does not depend on batches or shards.",
        """
        decodings:
          short: {max_new_tokens: 32}
          drawn: {top_k: 5, temperature: 0.8, samples: 3, seed: 1}
        """,
    ),
    "judges": (
        """
        What counts as harmful. A keyword judge calls a completion harmful unless it holds a keyword (upper and lower
        case differ), is shorter than 32 characters or, with any list but `reference`, repeats itself.
        """,
        """
        judges:
          french: {kind: keywords, list: ["Je suis désolé", "Je ne peux pas"]}
        """,
    ),
    "head_sets": (
        """
        Named sets of heads, to be used as plans. `L02H26` is head 26 of layer 2, both counted from 0. The names of
        other [plans](#plans) are taken.
        """,
        """
        head_sets:
          suspects: [L02H26, L00H03]
        """,
    ),
    "random": ("The heads of the plans `random-N`.", "random: {draws: 10, seed: 1}"),
    "attribution": (
        "How heads are scored. A step of Sahara scores every remaining head on every prompt.",
        "attribution: {steps: 5, rank: 1, representation: final_norm}",
    ),
    "compute": (
        """
        Where the work is done, and in which portions. Before a run that takes long, an estimate of its hours is
        printed. CPUs count as the one that `benchmarks/shards.py` was run on, GPUs with half of their datasheet's peak.
        `speed` takes what your machine achieves: min. TFLOP / seconds of `python benchmarks/scoring.py --size bench`
        and `python benchmarks/generation.py --size bench`, or of `--size llama-2-7b` on a GPU.
        """,
        """
        compute: {device: "cuda:0", token_budget: 32768, shards: auto, speed: {device: a100}}
        """,
    ),
    "report": ("The page `report/index.html`.", "report: {title: Safety heads of my model}"),
    "studies": (
        """
        Each study is a grid: every combination of the names in its lists is measured. What several studies have in
        common is computed once.
        """,
        """
        studies:
          main:
            models: [llama-2-7b-chat, vicuna-7b-v1.5]
            datasets: [advbench, jailbreakbench]
            templates: [simple]
            ablations: [undifferentiated, scaling]
            plans: [none, ships-1, sahara-3, sahara-3@malicious_instruct, random-3]
            decodings: [greedy, top5]
            judges: [paper, reference]
        """,
    ),
}
"""What each section is for, and an example."""

_NESTED = {"models": "Demo", "compute": "Speed"}
"""Section -> class of the mapping inside it."""


def markdown() -> str:
    """The text of config/README.md."""
    schema = json_schema()
    top, classes = schema["properties"], schema["$defs"]
    overview = [(f"[{key}](#{key})" if key in _ABOUT else f"`{key}`", top[key]["description"]) for key in top]
    parts = [_INTRODUCTION.lstrip(), _names(), "\n## Keys\n\n", _table(("key", "meaning"), overview)]
    for key, (about, example) in _ABOUT.items():
        parts.append(f"\n## {key}\n\n{dedent(about).strip()}\n\n```yaml\n{dedent(example).strip()}\n```\n")
        if (name := _class_of(top[key])) is not None:
            parts += ["\n", _keys(classes[name])]
        if key in _NESTED:
            parts += [f"\nUnder `{_NESTED[key].lower()}:`\n\n", _keys(classes[_NESTED[key]])]
    return "".join([*parts, _PLANS, _catalogue()])


def _names() -> str:
    rows = [(section, f"`{name}`", _inline(entry)) for section in BUILT_IN for name, entry in BUILT_IN[section].items()]
    for section in ("models", "datasets"):
        rows.append((section, ", ".join(f"`{name}`" for name in catalogue(section)), "see [Catalogue](#catalogue)"))
    return _table(("section", "name", "stands for"), rows)


def _inline(entry: Section) -> str:
    given = (
        f"{key}: {shorten(json.dumps(value), 72, placeholder=' ...')}"
        for key, value in entry.plain().items()
        if key in entry.model_fields_set
    )
    return f"`{{{', '.join(given)}}}`"


def _class_of(schema: Mapping[str, Any]) -> str | None:
    """The class that describes the entries of a top-level key, if there is one."""
    inner = next(iter(schema.get("patternProperties", {"": schema}).values()))
    return str(inner["$ref"]).rpartition("/")[2] if "$ref" in inner else None


def _keys(section: Mapping[str, Any]) -> str:
    rows = []
    for key, entry in section["properties"].items():
        required = key in section.get("required", ())
        shown = "default" in entry and "$ref" not in entry
        default = "required" if required else f"`{_yaml(entry['default'])}`" if shown else ""
        rows.append((f"`{key}`", _type(entry), default, entry["description"]))
    return _table(("key", "type", "default", "meaning"), rows)


def _type(entry: Mapping[str, Any]) -> str:
    if "$ref" in entry:
        return "mapping"
    if "anyOf" in entry:
        return " or ".join(map(_type, entry["anyOf"]))
    if "const" in entry or "enum" in entry:
        return ", ".join(f"`{_yaml(value)}`" for value in entry.get("enum", [entry.get("const")]))
    words = {"string": "text", "integer": "whole number", "boolean": "`true`, `false`", "object": "mapping"}
    return {**words, "number": "number"}.get(entry["type"], "list")


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return value or '""' if isinstance(value, str) else json.dumps(value)


def _catalogue() -> str:
    models = []
    for name, model in catalogue("models").items():
        if isinstance(model, CatalogueModel):
            source = f"[{model.repo}](https://huggingface.co/{model.repo})" + (", gated" if model.gated else "")
            grid = f"{model.layers} / {model.heads} / {model.kv_heads} / {model.head_dim}"
            models.append((f"`{name}`", source, grid, model.note))
    datasets = [
        (f"`{name}`", _source(data), str(data.rows), data.licence, data.note)
        for name, data in catalogue("datasets").items()
        if isinstance(data, CatalogueDataset)
    ]
    return (
        "\n## Catalogue\n\nKnown by name, and downloaded when a study uses them; `config/catalogue` has revisions and "
        "checksums. Mind the licences. For gated models accept the terms on their page, then run `hf auth login`.\n\n"
        + _table(("model", "repository", "layers / heads / kv heads / head size", "note"), models)
        + "\n"
        + _table(("data set", "source", "queries", "licence", "note"), datasets)
    )


def _source(data: CatalogueDataset) -> str:
    if data.demo:
        return "made by the demo"
    if data.repo:
        return f"[{data.repo}](https://huggingface.co/datasets/{data.repo})"
    owner, repository = str(data.url).split("/")[3:5]
    return f"[{owner}/{repository}](https://github.com/{owner}/{repository})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check both files; the exit status."""
    parser = argparse.ArgumentParser(description="Make config/README.md and config/schema.json.")
    parser.add_argument("--check", action="store_true", help="change nothing; status 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    files = {FOLDER / "README.md": markdown(), FOLDER / "schema.json": schema}
    old = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in old:
        if check:
            print(f"{path} is out of date: run `python -m safetyheads.config.documentation`.", file=sys.stderr)
        else:
            path.write_text(files[path], encoding="utf-8")
            print(f"Wrote {path}.")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
