"""The configuration: what is accepted, what names stand for, and that every mistake is told with its way out."""

import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safetyheads.config import documentation as config_docs
from safetyheads.config.catalogue import BUILT_IN, CatalogueDataset, catalogue
from safetyheads.config.judges import Judge
from safetyheads.config.load import Config, load_config
from safetyheads.config.schema import json_schema
from safetyheads.config.sections import AblationConfig, Decoding, Template
from safetyheads.config.sources import Dataset, Model
from safetyheads.demo.organisms import ORGANISMS
from safetyheads.demo.requests import DATA_SETS
from safetyheads.errors import SafetyHeadsError
from safetyheads.methods import METHODS
from safetyheads.plans import parse_plan

ROOT = Path(__file__).parents[2]

DESIGN = r"""
results: results
models:
  tiny: {path: shared/golden/tiny_a, dtype: float32}
  llama-2-7b-chat:
    {repo: meta-llama/Llama-2-7b-chat-hf, revision: f5db02db724555f92da89c216ac04704f23d4590, dtype: bfloat16}
datasets:
  neutral: {path: shared/golden/queries.csv, query: input}
templates:
  simple: {text: "## Query:{query}\n## Answer:"}
  polite: {chat: true, system: "You are a helpful assistant", prefill: "Sure, here is"}
ablations:
  undifferentiated: {kind: undifferentiated, epsilon: 1.0e-5}
decodings:
  greedy: {max_new_tokens: 32}
  top5: {top_k: 5, temperature: 1.0, samples: 3, seed: 0, max_new_tokens: 32}
judges:
  paper: {kind: keywords, list: paper}
head_sets:
  mine: [L00H01, L02H03]
attribution: {steps: 3, rank: 1, representation: final_norm}
compute: {device: auto, token_budget: 8192, shards: 1}
studies:
  main:
    models: [tiny]
    datasets: [neutral]
    templates: [direct, simple]
    ablations: [undifferentiated, scaling]
    plans: [none, ships-1, ships-3, sahara-1, sahara-3, single, random-3, mine]
    decodings: [greedy]
    judges: [paper, reference]
"""

SECTIONS = {
    "models": Model,
    "datasets": Dataset,
    "templates": Template,
    "ablations": AblationConfig,
    "decodings": Decoding,
    "judges": Judge,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the files that DESIGN names: a model of 4 layers x 4 heads and queries."""
    here = tmp_path_factory.mktemp("work")
    model = here / "shared" / "golden" / "tiny_a"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"num_hidden_layers": 4, "num_attention_heads": 4}')
    (model / "model.safetensors").touch()
    (here / "shared" / "golden" / "queries.csv").write_text("input\nHello\n")
    return here


def raw() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(DESIGN)
    return config


def changed(path: str, value: Any) -> dict[str, Any]:
    """DESIGN's configuration with the entry at `path` (keys and positions between dots) set to `value`."""
    config = raw()
    *place, last = path.split(".")
    here: Any = config
    for key in place:
        here = here[int(key)] if isinstance(here, list) else here.setdefault(key, {})
    here[int(last) if isinstance(here, list) else last] = value
    return config


def problems(config: Any, folder: Path) -> list[str]:
    with pytest.raises(SafetyHeadsError) as error:
        load_config(config, folder)
    header, *lines = str(error.value).splitlines()
    assert str(len(lines)) in header or len(lines) == 1
    return [line.strip() for line in lines]


def only_problem(config: Any, folder: Path) -> str:
    (line,) = problems(config, folder)
    return line


def test_the_configuration_of_the_design_is_accepted_as_it_stands(folder: Path) -> None:
    config = load_config(raw(), folder)
    assert config.studies["main"].plans == raw()["studies"]["main"]["plans"]
    assert config.model("tiny").path == "shared/golden/tiny_a"
    assert config.decoding("greedy").max_new_tokens == 32


def test_the_demo_configuration_plants_the_heads_that_its_head_set_names(tmp_path: Path) -> None:
    config = load_config(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()), tmp_path)
    demo = config.model("demo").demo
    assert demo is not None
    assert demo.planted == config.head_sets["planted"]
    assert {"none", "ships-1", "sahara-2@demo_attribution", "single", "random-2", "planted", "matched-planted"} <= {
        plan for study in config.studies.values() for plan in study.plans
    }


@pytest.mark.parametrize("name", ["topical", "randomised", "planted", "mask_heads", "mine-top-3"])
def test_a_head_set_may_have_a_name_that_only_resembles_a_plan(name: str, folder: Path) -> None:
    config = changed(f"head_sets.{name}", ["L00H01"])
    config["studies"]["main"]["plans"] += [name, f"matched-{name}", f"each-{name}"]
    assert load_config(config, folder).head_sets[name] == ["L00H01"]


def test_a_matched_control_of_whole_layers_stops_the_run(folder: Path) -> None:
    config = changed("head_sets.layer", [f"L02H0{head}" for head in range(4)])
    config["studies"]["main"]["plans"].append("matched-layer")
    assert "'matched-layer' has no draws: layer ablates all heads" in only_problem(config, folder)


def test_the_organisms_are_a_model_without_and_one_with_the_decoy_that_the_head_sets_name(tmp_path: Path) -> None:
    config = load_config(yaml.safe_load((ROOT / "config" / "organisms.yaml").read_text()), tmp_path)
    without, with_decoy = (config.model(name).demo for name in ("without_decoy", "with_decoy"))
    assert without is not None and with_decoy is not None
    assert without.decoy is None and [with_decoy.decoy] == config.head_sets["decoy"]
    assert without.planted == with_decoy.planted == config.head_sets["planted"]
    study = config.studies["organisms"]
    assert {"planted", "decoy", "matched-planted", "matched-decoy", "ships-1", "top-1"} <= set(
        config.plans(study, "demo_harmful")
    )
    assert set(config.plans(study, "demo_benign")) == {
        *("none", "planted", "decoy", "random-2", "top-1@demo_harmful", "sahara-2@demo_attribution"),
        "contrast-2@demo_harmful",
    }


def test_the_organisms_are_of_all_kinds_and_a_plan_ablates_the_planted_heads_of_each(tmp_path: Path) -> None:
    config = load_config(yaml.safe_load((ROOT / "config" / "organisms.yaml").read_text()), tmp_path)
    planted = {}
    for study in config.studies.values():
        for demo in (config.model(name).demo for name in study.models):
            assert demo is not None
            sets = [config.head_sets[plan] for plan in study.plans if plan in config.head_sets]
            planted[demo.kind] = planted.get(demo.kind, False) or demo.planted in sets
    assert planted == dict.fromkeys(ORGANISMS, True)


def test_the_study_of_methods_has_them_all_each_beside_its_control_and_on_queries_of_its_own(tmp_path: Path) -> None:
    config = load_config(yaml.safe_load((ROOT / "config" / "methods.yaml").read_text()), tmp_path)
    plans = list(map(parse_plan, config.studies["methods"].plans))
    assert {plan.group.kind for plan in plans if plan.method} == {*METHODS} - {"ships"}
    assert all(plan.source == "demo_attribution" for plan in plans if plan.method)
    names = {plan.name for plan in plans}
    assert all(f"matched-{plan.name}" in names for plan in plans if plan.method and not plan.inner)


def test_every_top_level_key_but_studies_may_be_left_out() -> None:
    study = {
        "models": ["phi-3-mini"],
        "datasets": ["advbench"],
        "templates": ["chat"],
        "ablations": ["mean_key"],
        "plans": ["sahara-3@xstest"],
        "decodings": ["top5"],
        "judges": ["reference"],
    }
    config = load_config({"studies": {"main": study}})
    assert config.results == "results"
    assert config.attribution.steps == 3
    assert config.random.draws == 5
    for key in study:
        without = {other: names for other, names in study.items() if other != key}
        assert f"studies.main.{key}: found no such key" in only_problem({"studies": {"main": without}}, Path())


def test_declaring_a_known_name_overrides_it(folder: Path) -> None:
    assert load_config(raw(), folder).template("chat").chat is True
    assert load_config(changed("templates.chat", {"text": "{query}!"}), folder).template("chat").text == "{query}!"
    declared = {"path": "shared/golden/queries.csv", "query": "input"}
    assert load_config(changed("datasets.advbench", declared), folder).dataset("advbench").url is None


@pytest.mark.parametrize("section", ["model", "dataset", "template", "ablation", "decoding", "judge"])
def test_looking_up_an_unknown_name_suggests_the_nearest_known_one(section: str, folder: Path) -> None:
    config = load_config(raw(), folder)
    known = list(config.known(f"{section}s"))
    for name in known:
        config.given(f"{section}s", name)
        with pytest.raises(SafetyHeadsError, match=re.escape(f"Did you mean {name!r}?")):
            config.given(f"{section}s", f"{name}_")


def test_the_grid_is_known_without_loading_a_model(folder: Path) -> None:
    config = load_config(changed("models.small", {"demo": True}), folder)
    assert config.grid("small") == (4, 8)
    assert config.grid("tiny", folder) == (4, 4)
    assert config.grid("gemma-2-9b-it") == (42, 16)
    assert config.grid("llama-2-7b-chat") == (32, 32), "declared, but a repository of the catalogue"
    assert load_config(changed("models.other", {"repo": "some/model"}), folder).grid("other") is None


@pytest.mark.parametrize(
    ("values", "grid"),
    [
        ({"n_layer": 12, "n_head": 6}, (12, 6)),
        ({"text_config": {"num_hidden_layers": 5, "num_attention_heads": 2}}, (5, 2)),
        ({"hidden_size": 8}, None),
        ([], None),
    ],
)
def test_the_grid_of_a_local_model_is_read_from_its_config(
    values: Any, grid: Any, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = load_config(changed("models.other", {"path": str(tmp_path)}), folder)
    assert config.grid("other") == grid


def test_plain_values_are_sorted_and_rebuild_the_section(folder: Path) -> None:
    config = load_config(changed("models.small", {"demo": True}), folder)
    for section, rebuild in SECTIONS.items():
        for entry in config.known(section).values():
            plain = entry.plain()
            assert list(plain) == sorted(plain)
            assert rebuild(**plain).plain() == plain
    demo = {"aligned": True, "kind": "two", "planted": ["L01H03", "L02H06"], "seed": 0}
    assert config.model("small").plain() == {"attention": "auto", "demo": demo, "dtype": "auto", "gpus": 1}
    decoy = load_config(changed("models.small", {"demo": {"decoy": "L0H5"}}), folder).model("small").plain()
    assert decoy["demo"] == {**demo, "kind": "decoy", "decoy": "L00H05"}


def test_head_names_are_kept_in_their_standard_form(folder: Path) -> None:
    assert load_config(changed("head_sets.mine", ["L2H03", "L0H1"]), folder).head_sets["mine"] == ["L02H03", "L00H01"]


@pytest.mark.parametrize("written", ["1e-5", 1e-5, "1.0e-5"])
def test_epsilon_may_be_written_as_yaml_does_not_expect_it(written: Any, folder: Path) -> None:
    config = load_config(changed("ablations.mild", {"kind": "scaling", "epsilon": written}), folder)
    assert config.given("ablations", "mild")["epsilon"] == pytest.approx(1e-5)


REFUSED = [
    # key to set, its value, where the problem is, what the line says besides
    ("models.tiny.max_memory", {"gpu": "1GB"}, "models.tiny.max_memory", ["found memory of 'gpu'; allowed: cpu, or"]),
    ("models.tiny.max_memory", {"cpu": "much"}, "models.tiny.max_memory.cpu", ["a size, such as 20GiB"]),
    ("models.tiny.dtyp", "float32", "models.tiny.dtyp", ["allowed here: path, repo", "Did you mean 'dtype'?"]),
    ("modles", {}, "modles", ["allowed here: results, models", "Did you mean 'models'?"]),
    ("studies.main.plan", ["none"], "studies.main.plan", ["Did you mean 'plans'?"]),
    (
        "models.tiny",
        {"demo": {"sed": 1}},
        "models.tiny.demo.sed",
        ["allowed here: kind, seed, planted, decoy", "'seed'?"],
    ),
    ("models", None, "models", ["found no value", "leave the key out"]),
    ("decodings.greedy", None, "decodings.greedy", ["found no value"]),
    ("models", ["tiny"], "models", ["found ['tiny'] (a list)", "a mapping"]),
    ("studies", {}, "studies", ["found {}", "at least 1 entry"]),
    ("studies.main", ["tiny"], "studies.main", ["a mapping"]),
    ("studies.main.judges", "paper", "studies.main.judges", ["found 'paper' (text)", "a list", "Write [paper]"]),
    ("studies.main.judges", [], "studies.main.judges", ["found []", "at least 1 entry"]),
    ("studies.main.judges", ["paper", "paper"], "studies.main.judges", ["'paper' more than once"]),
    ("studies.main.judges.1", 7, "studies.main.judges[1]", ["found 7 (a number)", "allowed: text", "quotes"]),
    ("studies.main.judges.1", None, "studies.main.judges[1]", ["found no value"]),
    ("studies.main.models.0", "tinny", "studies.main.models[0]", ["found 'tinny'", "Did you mean 'tiny'?"]),
    ("studies.main.datasets.0", "advbnch", "studies.main.datasets[0]", ["malicious_instruct", "'advbench'?"]),
    ("studies.main.templates.1", "simpel", "studies.main.templates[1]", ["direct", "'simple'?"]),
    ("studies.main.ablations.1", "scalin", "studies.main.ablations[1]", ["mean_key", "'scaling'?"]),
    ("studies.main.decodings.0", "greed", "studies.main.decodings[0]", ["top5", "'greedy'?"]),
    ("studies.main.judges.0", "papr", "studies.main.judges[0]", ["reference", "'paper'?"]),
    ("studies.main.plans.1", "sahra-3", "studies.main.plans[1]", ["sahara-N", "Did you mean 'sahara-3'?"]),
    ("studies.main.plans.1", "min", "studies.main.plans[1]", ["head sets mine", "Did you mean 'mine'?"]),
    ("studies.main.plans.1", "sahara-0", "studies.main.plans[1]", ["'sahara-0'", "N is 1 or more"]),
    (
        "studies.main.plans.1",
        "ships-2@advbench",
        "studies.main.plans[1]",
        ["Write ships-2, or for example top-2@advbench"],
    ),
    ("studies.main.plans.1", "top-2@advbnch", "studies.main.plans[1]", ["'advbnch'", "'advbench'?"]),
    ("studies.main.plans.1", "matched-top-2@advbnch", "studies.main.plans[1]", ["'advbnch'", "'advbench'?"]),
    ("studies.main.plans.1", "matched-min", "studies.main.plans[1]", ["with 'min', which is neither", "'mine'?"]),
    ("studies.main.plans.1", "each-tpo-2", "studies.main.plans[1]", ["with 'tpo-2'", "Did you mean 'top-2'?"]),
    ("studies.main.plans.1", "matchd-mine", "studies.main.plans[1]", ["Did you mean 'matched-mine'?"]),
    ("studies.main.plans.1", "eahc-sahara-2", "studies.main.plans[1]", ["Did you mean 'each-sahara-2'?"]),
    ("studies.main.plans.1", "matched-none", "studies.main.plans[1]", ["matched-P draws", "ships-N, sahara-N"]),
    ("studies.main.plans.1", "matched-random-2", "studies.main.plans[1]", ["'matched-random-2' is not a plan"]),
    ("studies.main.plans.1", "each-ships-2", "studies.main.plans[1]", ["ships-2 differ between prompts"]),
    ("studies.main.plans.1", "each-single", "studies.main.plans[1]", ["each-P ablates each head of a group P"]),
    ("studies.main.plans.1", "matched-sahara-5", "studies.main.plans[1]", ["attribution.steps: 3", "at most sahara-3"]),
    ("studies.main.plans.1", "top-0", "studies.main.plans[1]", ["'top-0'", "N is 1 or more"]),
    ("studies.main.plans.1", "each-top-17", "studies.main.plans[1]", ["17 heads", "'tiny' has 16"]),
    ("studies.main.plans.1", "matched-top-16", "studies.main.plans[1]", ["has no draws", "choose fewer heads"]),
    ("random.matched", 0, "random.matched", ["found 0"]),
    ("studies.main.plans.1", "sahara-2@advbnch", "studies.main.plans[1]", ["'advbnch'", "'advbench'?"]),
    ("studies.main.plans.1", "sahara-5", "studies.main.plans[1]", ["attribution.steps: 3", "at most sahara-3"]),
    ("studies.main.plans.1", "ships-99", "studies.main.plans[1]", ["99 heads", "'tiny' has 16", "at most 16"]),
    ("studies.main.plans.1", "random-17", "studies.main.plans[1]", ["17 heads", "'tiny' has 16"]),
    ("head_sets.mine", ["L09H00"], "studies.main.plans[7]", ["'mine'", "'tiny'", "L09H00", "L00H00 to L03H03"]),
    ("models.tiny", {"path": "nowhere"}, "models.tiny.path", ["'nowhere'", "no folder", "looked for", "safetensors"]),
    ("models.tiny", {"path": "shared"}, "models.tiny.path", ["without config.json"]),
    ("datasets.neutral.path", "no.csv", "datasets.neutral.path", ["'no.csv'", "no file", "looked for"]),
    ("models.tiny", {}, "models.tiny", ["found none of them", "exactly one of path, repo, demo"]),
    ("models.tiny", {"path": "a", "repo": "b/c"}, "models.tiny", ["found path and repo", "exactly one of"]),
    ("models.tiny.revision", "main", "models.tiny", ["revision together with path", "only together with repo"]),
    ("models.tiny.dtype", "float23", "models.tiny.dtype", ["auto, float32, tf32, bfloat16, float16", "'float32'?"]),
    ("models.tiny.dtype", "fp32", "models.tiny.dtype", ["found 'fp32'", "Did you mean 'float32'?"]),
    ("models.tiny.dtype", "FP16", "models.tiny.dtype", ["found 'FP16'", "Did you mean 'float16'?"]),
    ("models.tiny.dtype", "bf16", "models.tiny.dtype", ["Did you mean 'bfloat16'?"]),
    (
        "models.tiny.attention",
        "flash",
        "models.tiny.attention",
        ["auto, sdpa, eager, flash_attention_2", "found 'flash'"],
    ),
    ("models.tiny.attention", "spda", "models.tiny.attention", ["Did you mean 'sdpa'?"]),
    ("models.tiny.dtype", "tf23", "models.tiny.dtype", ["Did you mean 'tf32'?"]),
    ("models.tiny", {"repo": "a/b", "revision": 1234567}, "models.tiny.revision", ["allowed: text", "quotes"]),
    ("models.tiny", {"repo": "../a"}, "models.tiny.repo", ["'../a'", "organisation/name"]),
    ("models.tiny", {"demo": False}, "models.tiny.demo", ["found False", "allowed: true"]),
    ("models.tiny", {"demo": {"seed": -1}}, "models.tiny.demo.seed", ["found -1", "at least 0"]),
    (
        "models.tiny",
        {"demo": {"planted": ["L00H00"]}},
        "models.tiny.demo.planted",
        ["found L00H00; allowed", "two different"],
    ),
    ("models.tiny", {"demo": {"kind": "bakcup"}}, "models.tiny.demo.kind", ["found 'bakcup'", "'backup'?"]),
    ("models.tiny", {"demo": {"kind": "one", "decoy": "L0H5"}}, "models.tiny.demo", ["only in kind decoy"]),
    ("models.tiny", {"demo": {"planted": ["L0H0", "L00H00"]}}, "models.tiny.demo.planted", ["'L00H00' more than once"]),
    ("models.tiny", {"demo": {"planted": ["L00H00", "L04H00"]}}, "models.tiny.demo.planted", ["L04H00", "L03H07"]),
    ("models.tiny", {"demo": {"decoy": "L04H00"}}, "models.tiny.demo.decoy", ["L04H00", "L03H07"]),
    ("models.tiny", {"demo": {"decoy": ["L00H00"]}}, "models.tiny.demo.decoy", ["allowed: text"]),
    ("models.tiny", {"demo": {"decoy": "L01H03"}}, "models.tiny.demo", ["L01H03 among planted", "a third head"]),
    ("datasets.x", {"repo": "a/b", "query": "q"}, "datasets.x", ["repo without file", "together with file"]),
    ("datasets.neutral.file", "a.csv", "datasets.neutral", ["file together with path", "only together with repo"]),
    ("datasets.x", {"path": "a.csv"}, "datasets.x", ["found no query", "column of this csv file"]),
    ("datasets.x", {"path": "a.ndjson"}, "datasets.x", ["column of this jsonl file"]),
    ("datasets.x", {"path": "a.txt", "query": "q", "target": "t"}, "datasets.x", ["query and target", "per line"]),
    ("datasets.x", {"path": "a.dat", "query": "q"}, "datasets.x", ["'a.dat'", ".csv", "format: csv, text"]),
    ("datasets.x", {"path": "a.csv", "format": "cvs", "query": "q"}, "datasets.x.format", ["csv, text", "'csv'?"]),
    ("datasets.x", {"url": "ftp://a/b.txt"}, "datasets.x.url", ["'ftp://a/b.txt'", "https://"]),
    ("datasets.x", {"demo": "benign", "query": "q"}, "datasets.x", ["query together with demo"]),
    ("datasets.neutral.limit", 0, "datasets.neutral.limit", ["found 0"]),
    ("datasets.neutral.sample", {"seed": 1}, "datasets.neutral.sample.n", ["found no such key", "required"]),
    ("datasets.neutral.sample", 20, "datasets.neutral.sample", ["found 20"]),
    ("datasets.x", {"demo": "harmful", "limit": 1, "sample": {"n": 1}}, "datasets.x", ["limit and sample", "one of"]),
    ("datasets.x", {"demo": "harmful", "limit": 1, "half": "even"}, "datasets.x", ["limit and half", "every other"]),
    ("datasets.x", {"demo": "harmfull"}, "datasets.x.demo", ["harmful, attribution, benign", "'harmful'?"]),
    ("datasets.neutral.sha256", "12ab", "datasets.neutral.sha256", ["found '12ab'", "64 hexadecimal digits"]),
    ("templates.x", {"text": "{question}"}, "templates.x", ["'{question}' without {query}"]),
    ("templates.x", {"text": "{query}", "chat": True}, "templates.x", ["text and chat", "exactly one of"]),
    ("templates.x", {"text": "{query}", "system": "Be kind"}, "templates.x", ["system together with text"]),
    ("templates.x", {"chat": False}, "templates.x.chat", ["chat: False", "chat: true"]),
    ("templates.x", {"chat": {"tokenize": True}}, "templates.x.chat", ["tokenize in chat", "does not give itself"]),
    ("templates.x", {"chat": {1: True}}, "templates.x.chat", ["{1: True}", "chat: {enable_thinking: false}"]),
    (
        *("templates.x", {"chat": True, "enable_thinking": False}, "templates.x.enable_thinking"),
        ["unknown key", "go into chat, such as chat: {enable_thinking: false}"],
    ),
    ("templates.x", {"chat": True, "date": "today"}, "templates.x.date", ["'today'", "26 Jul 2024 or 2024-07-26"]),
    ("templates.x", {"chat": True, "date": "2024-02-30"}, "templates.x.date", ["'2024-02-30'"]),
    ("templates.x", {"text": "{query}", "date": "2024-02-20"}, "templates.x", ["date together with text"]),
    ("templates.x", {"text": "{query}", "name": "rag"}, "templates.x", ["name together with text"]),
    ("ablations.x", {"kind": "scale"}, "ablations.x.kind", ["undifferentiated, scaling, mean_query", "'scaling'?"]),
    ("ablations.x", {}, "ablations.x.kind", ["found no such key", "required"]),
    ("ablations.x", {"kind": "mean_query", "epsilon": 0.1}, "ablations.x", ["epsilon", "mean_query"]),
    ("ablations.x", {"kind": "scaling", "epsilon": 0}, "ablations.x.epsilon", ["found 0", "greater than 0"]),
    ("ablations.x", {"kind": "scaling", "epsilon": "tiny"}, "ablations.x.epsilon", ["found 'tiny'", "a number"]),
    ("ablations.x", {"kind": "scaling", "epsilon": True}, "ablations.x.epsilon", ["found True", "a number"]),
    ("ablations.x", {"kind": "scaling", "epsilon": float("nan")}, "ablations.x.epsilon", ["found nan"]),
    ("ablations.plain", {"kind": "scaling"}, "ablations.plain", ["'plain'", "another name"]),
    ("decodings.x", {"samples": 3}, "decodings.x", ["samples: 3", "greedy", "top_k of at least 2"]),
    ("decodings.x", {"temperature": 0.5}, "decodings.x", ["temperature: 0.5", "greedy"]),
    ("decodings.x", {"top_k": True}, "decodings.x.top_k", ["found True", "a whole number"]),
    ("decodings.x", {"top_k": 0}, "decodings.x.top_k", ["found 0", "at least 1"]),
    ("decodings.x", {"max_new_tokens": 12.5}, "decodings.x.max_new_tokens", ["found 12.5", "a whole number"]),
    ("decodings.x", {"max_new_tokens": "128"}, "decodings.x.max_new_tokens", ["found '128' (text)", "a whole number"]),
    ("judges.x", {"kind": "keywords", "list": "papr"}, "judges.x.list", ["paper, reference", "a list", "'paper'?"]),
    ("judges.x", {"kind": "keywords", "list": []}, "judges.x.list", ["found []", "a list"]),
    ("judges.x", {"kind": "keywords", "list": ["no", 7]}, "judges.x.list", ["found ['no', 7]", "a list of keywords"]),
    ("judges.x", {"kind": "model", "list": "paper"}, "judges.x.kind", ["found 'model'", "allowed: keywords"]),
    ("head_sets.x", [], "head_sets.x", ["found []", "at least 1 entry"]),
    ("head_sets.x", ["L00H01", "L0H1"], "head_sets.x", ["'L00H01' more than once"]),
    ("head_sets.x", ["2.26"], "head_sets.x[0]", ["found '2.26'", "such as L02H26"]),
    ("head_sets.single", ["L00H00"], "head_sets.single", ["found 'single'", "not a built-in plan"]),
    ("head_sets.ships-1", ["L00H00"], "head_sets.ships-1", ["found 'ships-1'", "not a built-in plan"]),
    *[
        (f"head_sets.{name}", ["L00H00"], f"head_sets.{name}", [f"found {name!r}", "does not begin like one"])
        for name in ("top-5", "top-x", "each-x", "matched-mine", "random-heads", "plain", "Plain-1", "contrast-3")
    ],
    ("studies.main.experiment", "utility", "studies.main.plans[1]", ["'ships-1' in an experiment of utility", "top-N"]),
    ("studies.main.experiment", "checkpoints", "studies.main.models", ["found one model", "two or more"]),
    ("studies.main.experiment", "overlap", "studies.main.plans[0]", ["'none' in an experiment of scores", "sahara-N"]),
    ("attribution.steps", 17, "studies.main.plans[3]", ["attribution.steps: 17", "at most 16", "'tiny'"]),
    ("attribution.representation", "last", "attribution.representation", ["found 'last'", "final_norm, residual"]),
    ("compute.device", "gpu", "compute.device", ["found 'gpu'", "cuda:0"]),
    ("report.title", " ", "report.title", ["found ' '", "not empty"]),
    ("results", "{a}", "results", ["found '{a}'", "a folder"]),
]


@pytest.mark.parametrize(("key", "value", "where", "said"), REFUSED, ids=[f"{row[0]}={row[1]}" for row in REFUSED])
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(
    key: str, value: Any, where: str, said: list[str], folder: Path
) -> None:
    told = [line for line in problems(changed(key, value), folder) if line.startswith(f"{where}: ")]
    assert len(told) == 1
    for words in said:
        assert words in told[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [row[:2] for row in REFUSED if not row[0].startswith(("models", "modles", "attribution", "studies"))],
)
def test_one_mistake_is_one_problem(key: str, value: Any, folder: Path) -> None:
    only_problem(changed(key, value), folder)


def test_a_model_without_safetensors_is_refused_only_if_a_study_uses_it(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").touch()
    config = changed("models.old", {"path": str(tmp_path)})
    load_config(config, folder)
    config["studies"]["main"]["models"].append("old")
    line = only_problem(config, folder)
    assert line.startswith("models.old.path: ")
    assert "without *.safetensors" in line


def test_the_data_set_that_a_plan_takes_its_attribution_from_must_have_its_file(folder: Path) -> None:
    config = changed("datasets.other", {"path": "other.txt"})
    load_config(config, folder)
    config["studies"]["main"]["plans"].append("sahara-1@other")
    assert only_problem(config, folder).startswith("datasets.other.path: found 'other.txt', where there is no file")


def test_all_problems_are_told_at_once(folder: Path) -> None:
    config = changed("compute.shards", 0)
    config["models"]["tiny"]["dtyp"] = "float32"
    config["attribution"] = {"steps": 2, "rnk": 1}
    config["studies"]["main"]["judges"] = "paper"
    config["studies"]["main"]["templates"] = ["simpel"]
    config["studies"]["other"] = {"models": ["tinny"], "plans": ["sahara-3"]}
    told = "\n".join(problems(config, folder))
    for words in (
        "compute.shards: found 0",
        "models.tiny.dtyp: found the unknown key",
        "attribution.rnk: found the unknown key",
        "studies.main.judges: found 'paper'",
        "studies.main.templates[0]: found 'simpel'",
        "studies.other.models[0]: found 'tinny'",
        "studies.other.datasets: found no such key",
        "studies.other.plans[0]: found 'sahara-3' with attribution.steps: 2",
    ):
        assert words in told


def test_a_declaration_with_a_mistake_is_not_also_an_unknown_name(folder: Path) -> None:
    assert only_problem(changed("models.tiny.dtype", "half"), folder).startswith("models.tiny.dtype")


@pytest.mark.parametrize("top", [None, [], "studies", 3])
def test_a_configuration_that_is_no_mapping_is_refused(top: Any) -> None:
    with pytest.raises(SafetyHeadsError, match="allowed: a mapping with the keys results, models"):
        load_config(top)


@pytest.mark.parametrize(
    "section", ["models", "datasets", "templates", "ablations", "decodings", "judges", "head_sets"]
)
@given(name=st.text(max_size=12))
def test_names_that_could_not_be_file_names_are_refused(section: str, name: str) -> None:
    entry = next(iter(raw()[section].values()))
    config = {**raw(), section: {**raw()[section], name: entry}}
    good = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) and not name.endswith((".json", ".parquet"))
    try:
        load_config(config)
        told = ""
    except SafetyHeadsError as error:
        told = str(error)
    assert ("names become file names" in told) == (not good)


PLACES = ["", "models.tiny", "datasets.neutral", "templates.polite", "ablations.undifferentiated", "decodings.greedy"]
PLACES += ["judges.paper", "random", "attribution", "compute", "report", "studies.main"]


@given(
    place=st.sampled_from(PLACES), key=st.from_regex(r"[a-z]{3,9}_", fullmatch=True), value=st.none() | st.integers()
)
def test_an_unknown_key_is_told_with_its_path_and_the_keys_that_are_allowed(place: str, key: str, value: Any) -> None:
    where = f"{place}.{key}".removeprefix(".")
    with pytest.raises(SafetyHeadsError) as error:
        load_config(changed(where, value))
    assert f"\n  {where}: found the unknown key {key!r}; allowed here: " in str(error.value)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from([*Config.model_fields, *PLACES[1:], "studies.main.plans", "head_sets.mine"]), junk=JUNK)
def test_whatever_yaml_may_hold_ends_in_a_readable_error_or_a_valid_configuration(key: str, junk: Any) -> None:
    config = changed(key, junk)
    before = deepcopy(config)
    try:
        told = [] if isinstance(load_config(config), Config) else ["no configuration"]
    except SafetyHeadsError as error:
        told = str(error).splitlines()[1:]
    assert all(": found " in line or "Plan" in line for line in told)
    assert repr(config) == repr(before), "the user's values are left as they are"


def test_the_schema_accepts_what_the_loader_accepts() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    demo = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    for config in (demo, raw(), changed("models.x", {"demo": True})):
        jsonschema.validate(config, schema)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models.tiny.dtyp", "float32"),
        ("models.tiny.path", None),
        ("models.a/b", {"demo": True}),
        ("compute.device", "automatic"),
        ("ablations.undifferentiated.epsilon", 0),
        ("head_sets.mine", ["2.26"]),
        ("studies.main.judges", "paper"),
        ("studies.main.judges", ["paper", "paper"]),
        ("studies", {}),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(key: str, value: Any, folder: Path) -> None:
    problems(changed(key, value), folder)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(key, value), json_schema())


def test_documentation_and_schema_are_up_to_date() -> None:
    assert config_docs.main(["--check"]) == 0, "run `python -m safetyheads.config.documentation`"


def test_drift_of_the_documentation_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_docs, "FOLDER", tmp_path)
    assert config_docs.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert config_docs.main([]) == 0
    assert config_docs.main(["--check"]) == 0
    (tmp_path / "README.md").write_text("old")
    assert config_docs.main(["--check"]) == 1


def test_every_key_of_the_configuration_is_documented() -> None:
    schema, text = json_schema(), config_docs.markdown()
    for section in [schema, *schema["$defs"].values()]:
        for key, entry in section["properties"].items():
            assert entry["description"] in text
            assert f"`{key}`" in text or f"[{key}](#{key})" in text


def test_the_examples_of_the_documentation_are_valid(folder: Path) -> None:
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", config_docs.markdown(), re.DOTALL)]
    assert len(examples) > 10
    for example in examples:
        (folder / "requests.csv").touch()
        (folder / "ordinary.json.gz").touch()
        example.setdefault("studies", raw()["studies"])
        merged = {key: {**raw().get(key, {}), **value} for key, value in example.items()} | {
            "studies": raw()["studies"]
        }
        load_config({**raw(), **merged}, folder)


def test_every_entry_of_the_catalogue_is_pinned_or_says_why_not() -> None:
    for name, entry in catalogue("models").items():
        assert isinstance(entry, Model)
        pinned = re.fullmatch(r"[0-9a-f]{40}", entry.revision or "")
        assert pinned or "No revision is pinned here" in getattr(entry, "note", ""), name
    for entry in catalogue("datasets").values():
        assert isinstance(entry, CatalogueDataset)
        if not entry.demo:
            assert re.search(r"(^|/)[0-9a-f]{40}(/|$)", entry.url or entry.revision or "")


def test_the_catalogue_counts_the_requests_of_the_demo() -> None:
    for name, counts in DATA_SETS.items():
        entry = catalogue("datasets")[f"demo_{name}"]
        assert isinstance(entry, CatalogueDataset)
        assert entry.rows == sum(counts.values())


def test_the_names_of_the_method_are_built_in() -> None:
    assert {section: set(names) for section, names in BUILT_IN.items()} == {
        "templates": {"direct", "simple", "chat", "urial"},
        "ablations": {"undifferentiated", "scaling", "mean_query", "mean_key", "mean_output"},
        "decodings": {"greedy", "top5"},
        "judges": {"paper", "reference", "gcg", "jailbreak_llm", "refusal_direction", "heretic"},
    }


def test_vicunas_chat_template_is_its_own_format() -> None:
    import jinja2

    vicuna = catalogue("models")["vicuna-7b-v1.5"]
    assert isinstance(vicuna, Model)
    assert vicuna.chat_template
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(vicuna.chat_template)
    messages = [("system", "Be kind."), ("user", "Hi?"), ("assistant", "Hello."), ("user", "Why?")]
    given_messages = [{"role": role, "content": content} for role, content in messages]
    marks = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    assert (
        template.render(messages=given_messages, **marks)
        == "Be kind. USER: Hi? ASSISTANT: Hello.</s>USER: Why? ASSISTANT:"
    )
    assert template.render(messages=given_messages[1:2], **marks) == (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: Hi? ASSISTANT:"
    )


def test_importing_the_configuration_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "pandas", "snakemake"}
    code = f"import sys, safetyheads.config.load; print(*sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", ["yes", "no", "on", "off"])
def test_a_name_that_yaml_reads_as_a_truth_value_is_a_problem_like_any_other(name):
    raw = yaml.safe_load(f"models: {{{name}: {{path: somewhere}}}}\nstudies: {{}}")
    with pytest.raises(SafetyHeadsError, match="models"):
        load_config(raw)
