"""Real data sets through tiny_a. They are not part of the repository: shared/data, beside the checkout, has copies."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from project import REPOSITORY, Project, shared

from safetyheads.plans import parse_plan

SHARED = REPOSITORY.parent / "shared" / "data"
FILES = {
    "advbench": "advbench/harmful_behaviors.csv",
    "jailbreakbench": "jailbreakbench/harmful-behaviors.csv",
    "malicious_instruct": "malicious_instruct/MaliciousInstruct.txt",
}
QUERIES = {"advbench": 520, "jailbreakbench": 100, "malicious_instruct": 100}
SAMPLES = {"greedy": 1, "top5": 3}
VARIANTS = {"none": 1, "ships-1": 1, "sahara-3": 1, "random-3": 5}
WHOLE = "malicious_instruct"  # is measured with every plan and decoding; of the others what scores of Ships lead to
CELLS = {
    name: [*product(VARIANTS, SAMPLES)] if name == WHOLE else [("none", "greedy"), ("ships-1", "greedy")]
    for name in QUERIES
}
HEADS = 16  # of tiny_a

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real data sets are not part of the repository: no {SHARED}"),
]


def settings() -> dict[str, Any]:
    """The catalogue's entries, checksums included, with local files in place of downloads."""
    catalogue = yaml.safe_load((REPOSITORY / "config/catalogue/datasets.yaml").read_text(encoding="utf-8"))
    kept = ("query", "category", "target", "sha256", "format")
    return {
        "models": {"tiny": {"path": "tiny_a", "dtype": "float32"}},
        "datasets": {
            name: {"path": str(SHARED / file)} | {key: catalogue[name][key] for key in kept if key in catalogue[name]}
            for name, file in FILES.items()
        },
        "decodings": {
            "greedy": {"max_new_tokens": 8},
            "top5": {"top_k": 5, "samples": SAMPLES["top5"], "max_new_tokens": 8},
        },
        "studies": {
            name: {
                "models": ["tiny"],
                "datasets": [name],
                "templates": ["simple"],
                "ablations": ["undifferentiated"],
                "plans": list(dict.fromkeys(plan for plan, _ in cells)),
                "decodings": list(dict.fromkeys(decoding for _, decoding in cells)),
                "judges": ["paper"],
            }
            for name, cells in CELLS.items()
        },
    }


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder, settings())
        project.make()
        return project

    return shared(tmp_path_factory, "real", run)


@pytest.mark.parametrize("dataset", QUERIES)
def test_every_artefact_has_exactly_its_rows(measured: Project, dataset: str) -> None:
    n, prompts = QUERIES[dataset], f"tiny/{dataset}/simple"
    queries = [f"{dataset}-{number:04d}" for number in range(n)]
    assert measured.read(f"datasets/{dataset}")["query_id"].tolist() == queries
    assert measured.read(f"prompts/{prompts}")["query_id"].tolist() == queries
    assert len(measured.read(f"ships/{prompts}/undifferentiated")) == n * HEADS
    if dataset == WHOLE:
        sahara = measured.read(f"sahara/{prompts}/undifferentiated")
        assert sahara.groupby("step").size().to_dict() == {1: HEADS, 2: HEADS - 1, 3: HEADS - 2}
    for plan, decoding in CELLS[dataset]:
        cell = f"{prompts}/{'plain' if plan == 'none' else 'undifferentiated'}/{plan}/{decoding}"
        rows = n * (VARIANTS[plan] + parse_plan(plan).paired) * SAMPLES[decoding]  # in float32, one plain row each
        for artefact in (f"completions/{cell}", f"verdicts/{cell}/paper"):
            table = measured.read(artefact)
            assert len(table) == len(table[["query_id", "variant", "sample"]].drop_duplicates()) == rows
            assert table.groupby("query_id").size().eq(rows // n).all()
            assert set(table["query_id"]) == set(queries)


def test_there_is_a_rate_for_every_cell(measured: Project) -> None:
    rates = measured.read("rates")
    assert len(rates) == sum(VARIANTS[plan] for cells in CELLS.values() for plan, _ in cells)
    assert (rates["n"] == rates["dataset"].map(QUERIES)).all()
    assert rates["asr"].between(0, 1).all()
    assert rates["p_value"].isna().tolist() == (rates["plan"] == "none").tolist()


def test_the_report_repeats_no_query(measured: Project) -> None:
    page = (measured.results / "report/index.html").read_text(encoding="utf-8")
    for dataset in QUERIES:
        assert not any(query in page for query in measured.read(f"datasets/{dataset}")["query"])


def test_nothing_is_left_over_and_nothing_remains_to_be_done(measured: Project) -> None:
    assert measured.temporary_files() == []
    assert measured.make() == {}
