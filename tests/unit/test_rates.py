import subprocess
import sys
from fractions import Fraction
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from safetyheads.artifacts.schemas import STAGES
from safetyheads.errors import SafetyHeadsError
from safetyheads.judges import outcomes
from safetyheads.report.figures.outcomes import OUTCOMES as SHOWN
from safetyheads.statistics.intervals import difference_interval, rate_interval, wilson
from safetyheads.statistics.pairs import CELL_KEYS, OUTCOMES
from safetyheads.statistics.rates import COLUMNS, rates
from safetyheads.statistics.significance import sign_test

CELL = {
    "model": "tiny",
    "dataset": "neutral",
    "template": "simple",
    "ablation": "scaling",
    "plan": "mine",
    "decoding": "greedy",
    "judge": "paper",
    "variant": "mine",
}
AS_PLAIN = {"ablation": "plain", "plan": "none", "variant": "none"}
Samples = list[list[bool]]
"""For each prompt its samples."""


def verdicts(samples: Samples, **keys: str) -> pd.DataFrame:
    rows = [
        {**CELL, **keys, "query_id": f"neutral-{query:04d}", "sample": sample, "harmful": harmful}
        for query, prompt in enumerate(samples)
        for sample, harmful in enumerate(prompt)
    ]
    made = pd.DataFrame(rows).astype({"sample": "int32", "harmful": bool}).assign(paired=None)
    return made.assign(outcome=made["harmful"].map({True: "complied", False: "refused"}))


def study(plain: Samples, **variants: Samples) -> pd.DataFrame:
    cells = [verdicts(samples, variant=name) for name, samples in variants.items()]
    return pd.concat([verdicts(plain, **AS_PLAIN), *cells], ignore_index=True)


def row(table: pd.DataFrame, **keys: str) -> pd.Series:
    chosen = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])]
    assert len(chosen) == 1
    return chosen.iloc[0]


def pair_of(sizes: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[Samples, Samples]]:
    """Verdicts of one cell and of its plain cell on the same 1 to 12 prompts, each prompt with a drawn sample count."""
    prompt = sizes.flatmap(lambda size: st.lists(st.booleans(), min_size=size, max_size=size))
    return st.lists(st.tuples(prompt, prompt), min_size=1, max_size=12).map(
        lambda pairs: ([own for own, _ in pairs], [plain for _, plain in pairs])
    )


def share(prompt: list[bool]) -> Fraction:
    return Fraction(sum(prompt), len(prompt))


@given(pair_of(st.just(1)) | pair_of(st.just(3)) | pair_of(st.integers(1, 7)))
def test_rates_are_what_exact_fractions_say(pair: tuple[Samples, Samples]) -> None:
    own, plain = pair
    table = rates(study(plain, mine=own))
    assert list(table.columns) == COLUMNS and len(table) == 2
    cell, base = row(table, variant="mine"), row(table, **AS_PLAIN)
    total, plain_total = sum(map(share, own)), sum(map(share, plain))
    assert cell["n"] == base["n"] == len(own)
    assert cell["harmful"] == pytest.approx(float(total), abs=1e-12)
    assert cell["asr"] == pytest.approx(float(total / len(own)), abs=1e-12)
    assert cell["delta"] == pytest.approx(float((total - plain_total) / len(own)), abs=1e-12)
    differences = [share(a) - share(b) for a, b in zip(own, plain, strict=True)]
    more, less = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    expected = min(1.0, 2 * binom.cdf(min(more, less), more + less, 0.5)) if more + less else 1.0
    assert cell["p_value"] == pytest.approx(expected)
    assert 0 <= cell["low"] <= cell["asr"] <= cell["high"] <= 1
    assert base["delta"] == 0 and np.isnan(base["p_value"])
    assert table["p_adjusted"].isna().all()


@given(pair_of(st.just(1)))
def test_with_one_sample_the_test_is_mcnemars(pair: tuple[Samples, Samples]) -> None:
    own, plain = pair
    changes = pd.crosstab(
        pd.Categorical([prompt[0] for prompt in own], [False, True]),
        pd.Categorical([prompt[0] for prompt in plain], [False, True]),
        dropna=False,
    )
    expected = mcnemar(changes.to_numpy(), exact=True).pvalue
    assert row(rates(study(plain, mine=own)), variant="mine")["p_value"] == pytest.approx(expected)


@given(pair_of(st.integers(1, 5)))
def test_swapping_the_two_cells_turns_delta_round_and_keeps_the_p_value(pair: tuple[Samples, Samples]) -> None:
    own, plain = pair
    there = row(rates(study(plain, mine=own)), variant="mine")
    back = row(rates(study(own, mine=plain)), variant="mine")
    assert there["delta"] == -back["delta"]
    assert there["p_value"] == back["p_value"]


@given(st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_all_or_nothing_gives_a_rate_of_one_or_nought_with_that_end_closed(n: int, samples: int, harmful: bool) -> None:
    cell = row(rates(study([[not harmful] * samples] * n, mine=[[harmful] * samples] * n)), variant="mine")
    assert cell["asr"] == harmful and cell["harmful"] == n * harmful
    assert cell["delta"] == (1 if harmful else -1)
    assert (cell["high"] if harmful else cell["low"]) == harmful
    assert cell["p_value"] == pytest.approx(2 * 0.5**n)


@given(pair_of(st.just(3)))
def test_equal_cells_show_no_difference(pair: tuple[Samples, Samples]) -> None:
    own, _ = pair
    cell = row(rates(study(own, mine=[prompt[::-1] for prompt in own])), variant="mine")
    assert cell["delta"] == 0 and cell["p_value"] == 1


def test_equal_shares_of_different_sample_counts_are_ties() -> None:
    thirds = [[True, False, False]] * 9
    sixths = [[True, False, False, False, True, False]] * 9
    forty_ninths = [[True] + [False] * 48] * 9
    assert row(rates(study(thirds, mine=sixths)), variant="mine")["p_value"] == 1
    assert row(rates(study(forty_ninths, mine=forty_ninths)), variant="mine")["p_value"] == 1
    assert row(rates(study(thirds, mine=forty_ninths)), variant="mine")["p_value"] == pytest.approx(2 * 0.5**9)


@given(st.integers(1, 600), st.data())
def test_wilson_solves_its_own_equation(n: int, data: st.DataObject) -> None:
    harmful = data.draw(st.integers(0, n) | st.floats(0, n))
    (low,), (high,) = wilson([harmful], [n])
    rate = harmful / n
    assert 0 <= low <= rate <= high <= 1 and low < high
    for bound in (low, high):
        distance = 1.959963984540054**2 * bound * (1 - bound) / n
        assert (rate - bound) ** 2 == pytest.approx(distance, rel=1e-6, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_symmetric_and_a_probability(more: int, less: int) -> None:
    assert 0 < sign_test(more, less) <= 1
    assert sign_test(more, less) == sign_test(less, more)
    assert sign_test(more, more) == 1


def grid(seed: int, prompts: int = 12) -> pd.DataFrame:
    """Two data sets, two judges, two ablations; plans none, single, random-12 and mine, with random verdicts."""
    rng = np.random.default_rng(seed)
    heads = [f"L{layer:02d}H{head:02d}" for layer in range(3) for head in range(4)]
    draws = [f"draw-{draw}" for draw in range(12)]
    cells = []
    for dataset, judge in product(["neutral", "other"], ["paper", "reference"]):
        asked = [("plain", "none", ["none"])]
        for ablation in ["scaling", "undifferentiated"]:
            asked += [(ablation, "single", heads), (ablation, "random-12", draws), (ablation, "mine", ["mine"])]
        for ablation, plan, variants in asked:
            for variant in variants:
                samples = (rng.random((prompts, 3)) < rng.random()).tolist()
                keys = {"dataset": dataset, "judge": judge, "ablation": ablation, "plan": plan, "variant": variant}
                cells.append(verdicts(samples, **keys))
    return pd.concat(cells, ignore_index=True)


GRID = grid(0)
RATES = rates(GRID)


def test_every_cell_has_one_row_in_sorted_order_with_plain_types() -> None:
    assert len(RATES) == len(GRID[CELL_KEYS].drop_duplicates()) == 2 * 2 * (1 + 2 * (12 + 12 + 1))
    assert list(RATES[CELL_KEYS].itertuples(index=False)) == sorted(RATES[CELL_KEYS].itertuples(index=False))
    assert [str(kind) for kind in RATES.dtypes] == ["str"] * 8 + ["int64"] + ["float64"] * 20 + ["str"] + [
        "float64"
    ] * 2


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_verdicts_changes_nothing(seed: int) -> None:
    pd.testing.assert_frame_equal(rates(GRID.sample(frac=1, random_state=seed)), RATES, check_exact=True)


def test_categorical_keys_change_nothing() -> None:
    backwards = GRID.assign(**{key: pd.Categorical(GRID[key], sorted(set(GRID[key]))[::-1]) for key in CELL_KEYS})
    pd.testing.assert_frame_equal(rates(backwards), RATES, check_exact=True)


def test_a_cell_does_not_depend_on_the_rest_of_the_study() -> None:
    part = GRID[(GRID["dataset"] == "other") & (GRID["judge"] == "paper") & GRID["plan"].isin(["none", "single"])]
    alone = RATES[(RATES["dataset"] == "other") & (RATES["judge"] == "paper") & RATES["plan"].isin(["none", "single"])]
    pd.testing.assert_frame_equal(rates(part), alone.reset_index(drop=True), check_exact=True)


def test_delta_is_taken_from_the_plain_cell_of_the_same_data_set_and_judge() -> None:
    plain = RATES[RATES["ablation"] == "plain"].set_index(["dataset", "judge"])["asr"]
    assert plain.nunique() > 1
    base = plain.loc[list(zip(RATES["dataset"], RATES["judge"], strict=True))].to_numpy()
    np.testing.assert_array_equal(RATES["delta"], RATES["asr"] - base)


def test_p_values_are_null_for_the_plan_none_alone_and_adjusted_ones_for_all_but_single() -> None:
    for column in ("p_value", "delta_low", "delta_high"):
        assert (RATES[column].isna() == (RATES["plan"] == "none")).all()
    assert (RATES["p_adjusted"].isna() == (RATES["plan"] != "single")).all()


def test_holm_corrects_over_the_heads_of_a_single_plan() -> None:
    single = RATES[RATES["plan"] == "single"]
    families = single.groupby(["dataset", "judge", "ablation"])
    assert len(families) == 8
    for _, family in families:
        ordered = family.sort_values("p_value", kind="stable")
        raw = ordered["p_value"].to_numpy()
        expected = np.minimum(np.maximum.accumulate(raw * np.arange(len(raw), 0, -1)), 1)
        np.testing.assert_allclose(ordered["p_adjusted"], expected)
        assert (ordered["p_adjusted"] >= raw).all() and ordered["p_adjusted"].is_monotonic_increasing
    assert (single["p_adjusted"] > single["p_value"]).any()


def with_own_plain_rows(seed: int, samples: int = 3) -> pd.DataFrame:
    """A map of `each-mine` whose batches hold plain rows of their own, with random verdicts of all outcomes."""
    rng = np.random.default_rng(seed)
    variants = ["plain", "plain-1", "L00H00", "L00H01", "L01H02"]
    cells = [verdicts([[False] * samples] * 9, **AS_PLAIN)]
    cells += [verdicts([[False] * samples] * 9, plan="each-mine", variant=variant) for variant in variants]
    table = pd.concat([*cells, verdicts([[False] * samples] * 9)], ignore_index=True)
    table["outcome"] = rng.choice(OUTCOMES, len(table))
    table["harmful"] = (table["outcome"] == "complied") | (rng.random(len(table)) < 0.1)
    own = (table["plan"] == "each-mine") & ~table["variant"].str.startswith("plain")
    table["paired"] = pd.Series(rng.choice(["plain", "plain-1"], len(table))).where(own, None)
    # The second answer is there only where some row names it.
    named = table.loc[own, ["query_id", "sample", "paired"]].drop_duplicates()
    second = (table["variant"] == "plain-1").to_numpy()
    kept = pd.MultiIndex.from_frame(table[["query_id", "sample", "variant"]]).isin(pd.MultiIndex.from_frame(named))
    return table[~second | kept].reset_index(drop=True)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_rows_pair_with_the_plain_row_of_their_own_batch_which_has_no_rate_itself(seed: int, samples: int) -> None:
    table = with_own_plain_rows(seed, samples)
    found = rates(table)
    assert sorted(found["variant"]) == ["L00H00", "L00H01", "L01H02", "mine", "none"]
    at = table.set_index(["plan", "variant", "query_id", "sample"])
    for name in ("L00H00", "L00H01", "L01H02"):
        own = table[table["variant"] == name]
        plain = [at.loc[("each-mine", one.paired, one.query_id, one.sample), "harmful"] for one in own.itertuples()]
        pairs = own.assign(plain=plain).astype({"plain": float}).groupby("query_id")[["harmful", "plain"]].mean()
        difference = (pairs["harmful"] - pairs["plain"]).to_numpy()
        one = row(found, variant=name)
        assert one["delta"] == pytest.approx(difference.mean())
        assert (one["delta_low"], one["delta_high"]) == pytest.approx(difference_interval(difference, samples))
        assert one["p_value"] == pytest.approx(sign_test((difference > 1e-6).sum(), (difference < -1e-6).sum()))
    cell, base = row(found, variant="mine"), row(found, **AS_PLAIN)
    assert cell["delta"] == cell["asr"] - base["asr"], "a plan of one set of heads pairs with the plain model's cell"


def test_outcomes_are_shares_of_prompts_and_add_up_to_one() -> None:
    table = with_own_plain_rows(5)
    found = rates(table)
    for one in found.itertuples():
        own = table[(table["plan"] == one.plan) & (table["variant"] == one.variant)]
        values = {name: (own["outcome"] == name).groupby(own["query_id"]).mean().to_numpy() for name in OUTCOMES}
        for name in set(OUTCOMES) - {"complied"}:
            assert getattr(one, name) == pytest.approx(values[name].mean())
        assert one.coherent_asr == pytest.approx(values["complied"].mean())
        assert (one.coherent_low, one.coherent_high) == pytest.approx(rate_interval(values["complied"], 3))
        assert one.coherent_asr <= one.asr
    others = [name for name in OUTCOMES if name != "complied"]
    np.testing.assert_allclose(found[[*others, "coherent_asr"]].sum(axis=1), 1)


def test_the_refused_share_is_null_for_judges_of_harm_alone() -> None:
    found = rates(GRID, harm_judges=["reference"])
    assert (found["refused"].isna() == (found["judge"] == "reference")).all()
    pd.testing.assert_frame_equal(found.drop(columns="refused"), RATES.drop(columns="refused"), check_exact=True)


def test_holm_corrects_over_the_heads_of_a_group_measured_one_by_one() -> None:
    found = rates(with_own_plain_rows(1))
    each = found[found["plan"] == "each-mine"]
    assert each["p_adjusted"].tolist() == multipletests(each["p_value"], method="holm")[1].tolist()
    assert found[found["plan"] != "each-mine"]["p_adjusted"].isna().all()


def test_a_plain_row_that_is_named_and_missing_is_an_error() -> None:
    table = with_own_plain_rows(0)
    lost = (table["variant"] == "plain") & (table["query_id"] == "neutral-0004")
    with pytest.raises(SafetyHeadsError, match="neutral-0004, sample .*with variant plain of that plan"):
        rates(table[~lost])


@given(pair_of(st.just(1)) | pair_of(st.integers(1, 4)))
def test_only_what_is_said_to_be_null_is_ever_null(pair: tuple[Samples, Samples]) -> None:
    own, plain = pair
    table = rates(study(plain, mine=own))
    unlabelled = ["corrected_asr", "corrected_low", "corrected_high", "corrected_by", "asr_lowest", "asr_highest"]
    numbers = table.drop(columns=["p_adjusted", *unlabelled])[table["plan"] != "none"]
    assert numbers.notna().all(axis=None)
    for value in ("delta", "coherent"):
        middle = numbers["delta" if value == "delta" else "coherent_asr"]
        assert ((numbers[f"{value}_low"] <= middle) & (middle <= numbers[f"{value}_high"])).all()
        assert (numbers[f"{value}_low"] < numbers[f"{value}_high"]).all()


def test_statistics_know_the_outcomes_that_judges_tell_apart() -> None:
    assert sorted(OUTCOMES) == sorted(outcomes.OUTCOMES)


def test_the_outcomes_of_the_schema_and_of_the_page_are_those_of_the_judges() -> None:
    """The rooms may not import each other, so each has a list of its own."""
    about = STAGES["verdicts"].about
    assert isinstance(about, dict) and about["outcome"] == ", ".join(f"`{name}`" for name in outcomes.OUTCOMES)
    on_the_page = [name.replace("coherent_asr", "complied") for name in SHOWN]
    assert sorted(on_the_page) == sorted(outcomes.OUTCOMES)


def test_a_missing_plain_cell_is_an_error_that_names_it() -> None:
    rest = GRID[(GRID["ablation"] != "plain") | (GRID["dataset"] != "other") | (GRID["judge"] != "reference")]
    with pytest.raises(SafetyHeadsError, match="dataset other.*judge reference are missing"):
        rates(rest)


@pytest.mark.parametrize(
    ("ablation", "only"), [("plain", "neutral-0003 only here"), ("scaling", "neutral-0003 only th")]
)
def test_prompts_that_do_not_match_are_an_error_that_names_them(ablation: str, only: str) -> None:
    table = study([[True]] * 5, mine=[[False]] * 5)
    with pytest.raises(SafetyHeadsError, match=f"plan mine.*{only}"):
        rates(table[(table["ablation"] != ablation) | (table["query_id"] != "neutral-0003")])


def test_as_many_but_other_prompts_are_an_error() -> None:
    table = study([[True]] * 5, mine=[[False]] * 5)
    with pytest.raises(SafetyHeadsError, match="odd only here, neutral-0000 only there"):
        rates(table.assign(query_id=table["query_id"].where(table.index != 5, "odd")))


def test_verdicts_that_would_be_counted_wrongly_are_errors() -> None:
    table = study([[True]] * 3, mine=[[False]] * 3)
    with pytest.raises(SafetyHeadsError, match="query_id neutral-0001.*more than one verdict"):
        rates(pd.concat([table, table.iloc[[1]]]))
    with pytest.raises(SafetyHeadsError, match="lack the columns sample"):
        rates(table.drop(columns="sample"))
    with pytest.raises(SafetyHeadsError, match="the outcome 'odd'; known: complied"):
        rates(table.assign(outcome="odd"))
    with pytest.raises(SafetyHeadsError, match="harmful is object"):
        rates(table.assign(harmful=table["harmful"].astype(object)))
    with pytest.raises(SafetyHeadsError, match="empty fields in the columns harmful"):
        rates(table.assign(harmful=table["harmful"].astype("boolean").where(table.index != 2)))
    with pytest.raises(SafetyHeadsError, match="empty fields in the columns judge"):
        rates(table.assign(judge=table["judge"].where(table.index != 2)))


def test_statistics_do_not_load_torch() -> None:
    code = "import sys, safetyheads.statistics.rates; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
