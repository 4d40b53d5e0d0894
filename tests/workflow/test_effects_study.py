"""Effects and rates of a study that was run, recomputed by hand from the files of its verdicts and completions."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import Project, Settings, shared, small_study

KEYS = ["model", "dataset", "template", "ablation", "plan", "decoding", "judge"]
PLANS = ["mine", "ships-1", "sahara-2@other"]
PAIRED = ["single", "random-2", "matched-mine", "each-mine"]


def settings() -> Settings:
    """Longer answers, and a data set that shares two queries with the one that is measured."""
    made = small_study()
    made["datasets"]["other"] = {"path": "other.csv", "query": "input"}
    made["decodings"]["short"] = {"top_k": 8, "samples": 2, "max_new_tokens": 24}
    made["judges"]["own"]["list"] = ["the", "a "]
    made["studies"]["main"]["plans"] = ["none", *PLANS, *PAIRED]
    return made


@pytest.fixture(scope="session")
def study(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    def run(folder: Path) -> Project:
        project = base.copy(folder)
        project.write_queries("neutral.csv", 5)
        project.write_queries("other.csv", 4, first=3)
        project.configure(settings())
        project.make()
        return project

    return shared(tmp_path_factory, "effects", run)


def cells(project: Project, stage: str) -> pd.DataFrame:
    return pd.concat(
        [project.read(str(path.relative_to(project.results).with_suffix(""))) for path in sorted(
            (project.results / stage).rglob("*.parquet"))],
        ignore_index=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def verdicts(study: Project) -> pd.DataFrame:
    return cells(study, "verdicts")


def values(verdicts: pd.DataFrame, judge: str, plan: str, kind: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Variant -> query -> the share of its samples with heads ablated, and in the plain rows that they pair with."""
    rows = verdicts[(verdicts["judge"] == judge) & (verdicts["dataset"] == "neutral")]
    good = {
        (one.plan, one.variant, one.query_id, one.sample): float(one.harmful if kind == "asr" else one.outcome == kind)
        for one in rows.itertuples()
    }
    found: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(list))
    for one in rows[rows["plan"] == plan].itertuples():
        if not one.variant.startswith("plain"):
            own = (plan, one.paired) if isinstance(one.paired, str) else ("none", "none")
            pair = (good[plan, one.variant, one.query_id, one.sample], good[(*own, one.query_id, one.sample)])
            found[one.variant][one.query_id].append(pair)
    return {
        variant: {query: tuple(sum(part) / len(part) for part in zip(*pairs)) for query, pairs in prompts.items()}
        for variant, prompts in found.items()
    }


def mean_change(prompts: dict[str, tuple[float, float]]) -> float:
    return sum(own - plain for own, plain in prompts.values()) / len(prompts)


def test_rows_of_many_sets_name_the_plain_row_of_their_batch_and_others_none(verdicts: pd.DataFrame) -> None:
    plain = (verdicts["plan"] == "none") | verdicts["variant"].str.startswith("plain")
    assert verdicts.loc[verdicts["plan"].isin(PAIRED) & ~plain, "paired"].notna().all()
    assert verdicts.loc[~verdicts["plan"].isin(PAIRED) | plain, "paired"].isna().all()
    assert verdicts["outcome"].nunique() >= 3, "this study shows something"


def test_effects_are_what_plain_python_makes_of_the_verdicts(study: Project, verdicts: pd.DataFrame) -> None:
    effects = study.read("effects")
    assert sorted(effects["plan"].unique()) == sorted(PLANS)
    assert len(effects) == len(PLANS) * 2
    for row in effects.itertuples():
        for kind, end in (("complied", ""), ("asr", "_asr"), ("refused", "_refused")):
            (own,) = values(verdicts, row.judge, row.plan, kind).values()
            assert row.n == len(own) == 5
            assert getattr(row, f"ablated{end}") == pytest.approx(sum(one for one, _ in own.values()) / 5)
            assert getattr(row, f"plain{end}") == pytest.approx(sum(plain for _, plain in own.values()) / 5)
            assert getattr(row, f"effect{end}") == pytest.approx(mean_change(own))
        broken = verdicts[(verdicts["plan"] == row.plan) & (verdicts["judge"] == row.judge)]
        assert row.degenerate == pytest.approx((broken["outcome"] == "degenerate").mean())
    assert effects["effect"].abs().max() > 0


def test_the_control_is_what_plain_python_makes_of_its_draws(study: Project, verdicts: pd.DataFrame) -> None:
    effects = study.read("effects").set_index(["plan", "judge"])
    for judge in ("own", "paper"):
        row = effects.loc[("mine", judge)]
        (own,) = values(verdicts, judge, "mine", "complied").values()
        draws = values(verdicts, judge, "matched-mine", "complied")
        changes = [mean_change(draw) for draw in draws.values()]
        assert row["draws"] == len(draws) > 1
        assert row["control"] == pytest.approx(
            sum(one for draw in draws.values() for one, _ in draw.values()) / (5 * len(draws))
        )
        assert row["over_control"] == pytest.approx(mean_change(own) - sum(changes) / len(changes))
        as_far = sum(abs(change) > abs(mean_change(own)) - 1e-6 for change in changes)
        assert row["p_control"] == pytest.approx((1 + as_far) / (1 + len(draws)))
        heads = values(verdicts, judge, "each-mine", "complied")
        assert set(heads) == {"L00H01", "L02H03"}
        assert row["interaction"] == pytest.approx(mean_change(own) - sum(map(mean_change, heads.values())))
        drawn = values(verdicts, judge, "random-2", "complied")
        assert row["uniform"] == pytest.approx(
            sum(one for draw in drawn.values() for one, _ in draw.values()) / (5 * len(drawn))
        )


def test_every_draw_has_as_many_heads_of_each_layer_as_the_plan(study: Project) -> None:
    made = study.read("completions/tiny/neutral/plainly/undifferentiated/matched-mine/short")
    plan = [0, 2]
    for heads in made.loc[~made["variant"].str.startswith("plain"), "heads"]:
        assert sorted(head["layer"] for head in heads) == plan
    assert {str(list(heads)) for heads in made.loc[made["variant"].str.startswith("plain"), "heads"]} == {"[]"}


def test_rates_pair_as_effects_do_and_leave_plain_rows_out(study: Project, verdicts: pd.DataFrame) -> None:
    rates = study.read("rates").query("dataset == 'neutral'")
    assert not rates["variant"].str.startswith("plain").any()
    for row in rates[rates["plan"] != "none"].itertuples():
        own = values(verdicts, row.judge, row.plan, "asr")[row.variant]
        assert row.delta == pytest.approx(mean_change(own))
        complied = values(verdicts, row.judge, row.plan, "complied")[row.variant]
        assert row.coherent_asr == pytest.approx(sum(one for one, _ in complied.values()) / len(complied))
    null = {"p_adjusted", "corrected_asr", "corrected_low", "corrected_high", "corrected_by"}
    measured = rates[rates["plan"] != "none"].drop(columns=list(null))
    assert measured.notna().all(axis=None)
    adjusted = rates["plan"].isin(["single", "each-mine"])
    assert (rates["p_adjusted"].notna() == adjusted).all()


def test_plain_rows_of_float32_never_differ(study: Project) -> None:
    noise = study.read("noise")
    assert noise["judge"].tolist() == ["own", "paper"]
    assert noise["n"].tolist() == [10, 10]
    assert noise["texts"].tolist() == noise["verdicts"].tolist() == [0, 0]


def test_leaked_queries_are_counted_and_dropped_where_the_study_says_so(study: Project, tmp_path: Path) -> None:
    at = ["plan", "judge"]
    kept = study.read("effects").set_index(at)
    assert kept.loc[("sahara-2@other", "own"), "leaks"] == 2
    assert kept.loc[("ships-1", "own"), "leaks"] == 5
    project = study.copy(tmp_path / "project")
    changed = settings()
    changed["studies"]["main"]["leaks"] = "drop"
    project.configure(changed)
    assert project.make() == {"effects": 1, "report": 1, "all": 1}
    dropped = project.read("effects").set_index(at)
    assert dropped.loc[("sahara-2@other", "own"), ["n", "leaks"]].tolist() == [3, 2]
    same = [key for key in dropped.index if key[0] != "sahara-2@other"]
    unadjusted = [name for name in kept if not name.startswith("p_adjusted")]
    pd.testing.assert_frame_equal(dropped.loc[same, unadjusted], kept.loc[same, unadjusted])


def test_a_change_of_thinking_tags_judges_again_and_generates_nothing(study: Project, tmp_path: Path) -> None:
    project = study.copy(tmp_path / "project")
    changed = settings()
    changed["models"]["tiny"]["thinking"] = {"open": " t", "close": "</think>"}
    project.configure(changed)
    count = 2 * (1 + len(PLANS) + len(PAIRED))
    tables = dict.fromkeys(("rates", "agreement", "effects", "maps", "concentration", "noise", "report", "all"), 1)
    assert project.make() == {"verdicts": count, **tables}
    before, after = (cells(one, "verdicts") for one in (study, project))
    unfinished = after["outcome"] == "unfinished"
    assert unfinished.any() and not (before["outcome"] == "unfinished").any(), "answers hold what is called a tag here"
    pd.testing.assert_frame_equal(after[~unfinished], before[~unfinished])
    assert not (unfinished & (before["outcome"] == "degenerate")).any()
