"""Every method of attribution as a stage of a study: what it leaves, what depends on it, and attack templates."""

from pathlib import Path

import pandas as pd
import pytest
from project import Project, Settings, jobs, shared, small_study

from safetyheads.heads import Head
from safetyheads.methods import METHODS

OWN = [name for name, method in METHODS.items() if method.scores == name and name not in ("ships", "sahara")]
KEYS = ["method", "model", "dataset", "template", "ablation"]
CELL = "tiny/neutral/plainly/undifferentiated"


def study() -> Settings:
    settings = small_study()
    settings["datasets"]["mild"] = {"path": "mild.csv", "query": "input", "benign": True}
    settings["templates"]["begun"] = {"text": "{query}", "prefill": " Well, "}
    # The openings of tiny_a's answers are as random as its weights: these are some that it begins with now and then.
    settings["attribution"] = {
        **{"steps": 2, "benign": "mild", "attacks": {"begun": "plainly"}, "openings": ["The", "A", "I"]},
        **{"gradient": {"sample": 2}, "knockouts": {"masks": 24}, "mask": {"starts": 2}},
    }
    settings["decodings"]["short"] = {"max_new_tokens": 4}
    plans = [f"{name}-2" for name in OWN]
    settings["studies"]["main"] |= {"plans": [*plans, "matched-gradient-1", "each-mask-2"], "judges": ["paper"]}
    settings["studies"]["main"]["templates"] = ["plainly", "begun"]
    return settings


@pytest.fixture(scope="session")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = Project.create(folder, study())
        project.write_queries("mild.csv", 4, first=5)
        project.make()
        return project

    return shared(tmp_path_factory, "methods", run)


@pytest.mark.parametrize("method", OWN)
def test_a_method_leaves_the_scores_of_all_heads_and_completions_ablate_the_first_of_them(
    methods: Project, method: str
) -> None:
    rows = methods.read(f"scores/{method}/{CELL}")
    assert rows[KEYS].drop_duplicates().to_numpy().tolist() == [[method, *CELL.split("/")]]
    of, first = METHODS[method], rows[rows["step"].isna() | (rows["step"] == 1)]
    assert len(first[["layer", "head"]].drop_duplicates()) == 16 == len(first)
    assert rows["step"].notna().all() == of.searches and rows["score"].notna().all()
    if of.searches:
        chosen = rows[rows["selected"].astype(bool)]
        assert chosen["step"].tolist() == [1, 2]
    else:
        chosen = rows.sort_values(["score", "layer", "head"], ascending=[False, True, True]).head(2)
    expected = sorted((int(layer), int(head)) for layer, head in zip(chosen["layer"], chosen["head"]))
    completions = methods.read(f"completions/{CELL}/{method}-2/short")
    ablated = {tuple((one["layer"], one["head"]) for one in heads) for heads in completions["heads"]}
    assert ablated == {tuple(expected)}


def test_tables_and_page_have_every_method(methods: Project) -> None:
    effects, page = methods.read("effects"), (methods.results / "report/index.html").read_text(encoding="utf-8")
    assert {f"{name}-2" for name in OWN} <= set(effects["plan"])
    assert set(methods.read("concentration")["method"]) == set(OWN)
    stability = methods.read("stability")
    assert set(stability["method"]) == set(OWN)
    assert stability.loc[stability["method"] == "knockouts", "share"].notna().all()
    assert "Other methods: which heads do they name?" in page and "which heads do they change?" in page
    for name in OWN:
        assert f"{name}, plainly, undifferentiated" in page


def test_an_attack_is_compared_with_its_clean_template(methods: Project) -> None:
    found = methods.read("attacks")
    assert found[["clean", "attack"]].drop_duplicates().to_numpy().tolist() == [["plainly", "begun"]]
    assert len(found) == 16 and (found["n"] == 3).all()
    ships = {name: methods.read(f"ships/tiny/neutral/{name}/undifferentiated") for name in ("plainly", "begun")}
    means = {name: table.groupby(["layer", "head"])["score"].mean() for name, table in ships.items()}
    head = Head(int(found["layer"][5]), int(found["head"][5]))
    assert found["score_change"][5] == pytest.approx(means["begun"][head] - means["plainly"][head])
    looks = methods.read("attention/tiny/neutral/plainly").groupby(["layer", "head"])["to_query"].mean()
    assert found["to_query_clean"][5] == pytest.approx(looks[head]) and 0 < looks[head] <= 1


def test_a_change_of_one_method_makes_its_own_scores_again_and_no_others(methods: Project, tmp_path: Path) -> None:
    project = methods.copy(tmp_path / "project")
    project.edit("workflow/safetyheads/attribution/knockouts.py", "RESAMPLES = 100", "RESAMPLES = 101")
    planned = jobs(project.run("--dry-run", "attribution").output)
    assert planned == {"scores_knockouts": 2, "attribution": 1}
    settings = study()
    settings["attribution"]["mask"] = {"starts": 3}
    project = methods.copy(tmp_path / "other")
    project.configure(settings)
    assert jobs(project.run("--dry-run", "attribution").output) == {"scores_mask": 2, "attribution": 1}


def test_a_method_that_needs_benign_prompts_says_so_before_any_job(tmp_path: Path, methods: Project) -> None:
    project = methods.copy(tmp_path / "project")
    settings = study()
    settings["datasets"]["mild"]["benign"] = False
    del settings["attribution"]["benign"]
    project.configure(settings)
    refused = project.run("--dry-run")
    assert refused.status != 0
    assert "'gradient-2', but gradient needs a data set of benign queries, and none is known" in refused.output
    assert pd.isna(project.read(f"scores/gradient/{CELL}")["support"]).all()
