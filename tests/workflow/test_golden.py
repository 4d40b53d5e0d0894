"""The whole pipeline on tiny_a gives the golden numbers of tests/data, which the authors' own code made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from project import DATA, Project, shared

NEW_TOKENS, END_OF_SEQUENCE, MARGIN = 32, 2, 1e-3
SHIPS = ("undifferentiated", "scaling", "mean_query", "mean_key", "mean_output")
MASKS = {
    ("scale_mask", "q"): "undifferentiated",
    ("scale_mask", "k"): "undifferentiated",
    ("scale_mask", "v"): "scaling",
    ("mean_mask", "q"): "mean_query",
    ("mean_mask", "k"): "mean_key",
    ("mean_mask", "v"): "mean_output",
}
TEMPLATES = {"direct": "direct", "template": "spaced"}  # golden -> ours
SCORED = [(*mask, "direct") for mask in MASKS] + [("scale_mask", "q", "template")]
"""What goes through the pipeline of all masks and templates, in which the library's functions are compared."""
GROUPS = {  # ablated for prompts of the template `shown`: the best heads of most of the queries in `spaced`
    "one": ["L00H01"],
    "three": ["L00H01", "L00H03", "L01H01"],
}


def settings() -> dict[str, Any]:
    common = {"models": ["tiny"], "datasets": ["neutral"], "decodings": ["greedy"], "judges": ["reference"]}
    return {
        "models": {"tiny": {"path": "tiny_a", "dtype": "float32"}},
        "datasets": {"neutral": {"path": "neutral.csv", "query": "input"}},
        "templates": {
            "spaced": {"text": "## Query:{query} \n## Answer:"},
            "shown": {"text": "## Query: {query}\n## Answer:"},
        },
        "decodings": {"greedy": {"max_new_tokens": NEW_TOKENS}},
        "head_sets": GROUPS,
        "attribution": {"steps": 3},
        "studies": {
            "ships": common | {"templates": ["direct"], "ablations": [*SHIPS], "plans": ["ships-1"]},
            "spaced": common | {"templates": ["spaced"], "ablations": [SHIPS[0]], "plans": ["ships-1"]},
            "sahara": common
            | {"templates": ["simple"], "ablations": ["undifferentiated", "scaling"], "plans": ["sahara-3"]},
        },
    }


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All scores of the golden files."""
    return shared(tmp_path_factory, "golden", score)


def score(folder: Path) -> Project:
    project = Project.create(folder, settings())
    project.write_queries("neutral.csv", 16)
    assert project.make("attribution") == {
        "datasets": 1,
        "models": 1,
        "checks": 1,
        "prompts": 3,
        "ships": 6,
        "sahara": 2,
        "attribution": 1,
    }
    return project


def numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """With query_index instead of query_id."""
    return rows.assign(query_index=rows["query_id"].str[-4:].astype(int)).drop(columns="query_id")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mask", "template"), SCORED)
def test_ships_equals_the_golden_numbers(scored: Project, kind: str, mask: str, template: str) -> None:
    golden = pd.read_parquet(DATA / "tiny_a-ships.parquet")
    golden = golden.query("mask_type == @kind and mask_qkv == @mask and template == @template")
    ours = numbered(scored.read(f"ships/tiny/neutral/{TEMPLATES[template]}/{MASKS[kind, mask]}"))
    both = golden.merge(ours, on=["query_index", "layer", "head"], validate="one_to_one")
    assert len(both) == len(golden) == len(ours) == 16 * 16
    assert (np.abs(both["score"] - both["ships_f64"]) <= 1e-5 + 1e-4 * both["ships_f64"]).all()
    for _, rows in both.groupby("query_index"):
        best = rows.nlargest(10, "score")[["layer", "head"]]
        assert best.values.tolist() == rows.nlargest(10, "ships_f64")[["layer", "head"]].values.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("mask", "ablation"), [("q", "undifferentiated"), ("v", "scaling")])
def test_sahara_equals_the_golden_numbers_and_choices(scored: Project, mask: str, ablation: str) -> None:
    golden = pd.read_parquet(DATA / "tiny_a-sahara.parquet").query("mask_qkv == @mask")
    golden = golden.assign(step=golden["step"] + 1)
    ours = scored.read(f"sahara/tiny/neutral/simple/{ablation}")
    both = golden.merge(ours, on=["step", "layer", "head"], suffixes=("_golden", ""), validate="one_to_one")
    assert len(both) == len(golden) == len(ours) == 16 + 15 + 14
    assert (np.abs(both["score"] - both["angle_deg_f64"]) < 0.02).all()
    assert (both["selected"] == both["selected_golden"]).all()
    assert both["selected"].sum() == 3


@pytest.mark.slow
def test_greedy_completions_equal_the_golden_tokens(scored: Project, tmp_path: Path) -> None:
    golden = json.loads((DATA / "tiny_a-generation.json").read_text(encoding="utf-8"))
    cells = {
        "direct": ["plain/none", "undifferentiated/ships-3"],
        "shown": [f"undifferentiated/{group}" for group in GROUPS],
    }
    paths = [f"tiny/neutral/{template}/{plan}/greedy" for template, plans in cells.items() for plan in plans]
    project = scored.copy(tmp_path / "project")
    project.make(*(f"results/completions/{path}.parquet" for path in paths))
    ours = {
        (row.template, row.query_index, tuple((head["layer"], head["head"]) for head in row.heads)): row
        for path in paths
        for row in numbered(project.read(f"completions/{path}")).itertuples()
    }
    prompts = {
        (row.template, row.query_index): row.token_ids.tolist()
        for template in cells
        for row in numbered(project.read(f"prompts/tiny/neutral/{template}")).itertuples()
    }
    compared = 0
    for case in golden:
        prompt = "direct" if case["template"] == "direct" else "shown", case["query_index"]
        assert prompts[prompt] == case["prompt_ids"]
        row = ours.get((*prompt, tuple(sorted(map(tuple, case["heads"])))))
        if row is None or case["min_top2_logit_margin"] < MARGIN:
            continue
        tokens = case["greedy_ids"]
        ended = tokens[-1] == END_OF_SEQUENCE
        assert row.token_ids.tolist() == (tokens[:-1] if ended else tokens)
        assert row.finish_reason == ("eos" if ended else "length")
        assert row.n_tokens == len(row.token_ids)
        compared += 1
    assert compared > 24


def test_the_reference_judge_gives_the_golden_verdicts(tmp_path: Path) -> None:
    from safetyheads.artifacts.files import write

    cases = pd.read_csv(DATA / "keyword-judge-cases.csv", keep_default_na=False)
    project = Project.create(tmp_path / "project", settings())
    rows = pd.DataFrame({"query_id": [f"neutral-{number:04d}" for number in range(len(cases))]}).assign(
        variant="none", heads=[[]] * len(cases), sample=0, text=cases["response"], finish_reason="length"
    )
    rows = rows.assign(token_ids=[[]] * len(cases), n_tokens=0, paired=None, first_kl=None, plain_nll=None)
    keys = dict(zip(("model", "dataset", "template"), ("tiny", "neutral", "direct")))
    keys |= {"ablation": "plain", "plan": "none", "decoding": "greedy"}
    cell = "/".join(keys.values())
    write("completions", project.results / "completions" / f"{cell}.parquet", rows, keys, {})
    assert project.make(f"results/verdicts/{cell}/reference.parquet", "--allowed-rules", "verdicts") == {"verdicts": 1}
    verdicts = project.read(f"verdicts/{cell}/reference")
    assert verdicts["harmful"].tolist() == (cases["score_harmful"] == 1).tolist()
    assert verdicts["probability"].isna().all()
