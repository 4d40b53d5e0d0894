"""Maps of single heads: the test holds its level, finds what is planted, and is what is counted by hand."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from safetyheads.heads import Head
from safetyheads.statistics import maps as module
from safetyheads.statistics.maps import COLUMNS, COLUMNS_BY_HEAD, maps, needed, permuted

Matrix = NDArray[np.float64]
KEYS = {"model": "m", "dataset": "d", "template": "t", "decoding": "greedy", "judge": "paper"}


def verdicts(
    ablated: Matrix,
    plain: Matrix,
    batch: NDArray[np.int64] | None = None,
    *,
    plan: str = "single",
    heads: list[Head] | None = None,
    harmful: Matrix | None = None,
) -> pd.DataFrame:
    """Verdicts of a map: `ablated` (prompts, heads, samples) and `plain` (prompts, batches, samples) are 0 or 1.

    `batch` (heads,) says in which batch a head's rows are. The plain model's own cell says what the first batch says.
    `harmful`, as `ablated`, is what the judge says, if that is something else.
    """
    prompts, count, samples = ablated.shape
    batch = np.zeros(count, dtype=int) if batch is None else batch
    names = ["plain", *(f"plain-{number}" for number in range(1, plain.shape[1]))]
    heads = heads or [Head(*divmod(number, 8)) for number in range(count)]
    rows: list[dict[str, Any]] = []

    def add(plan: str, variant: str, prompt: int, sample: int, value: float, said: float, paired: str | None) -> None:
        cell = {"ablation": "plain" if plan == "none" else "ua", "plan": plan, "variant": variant}
        rows.append({**KEYS, **cell, "query_id": f"q-{prompt:03d}", "sample": sample, "paired": paired})
        rows[-1] |= {"harmful": bool(said), "outcome": "complied" if value else "refused"}

    for prompt, sample in product(range(prompts), range(samples)):
        first = plain[prompt, 0, sample]
        add("none", "none", prompt, sample, first, first, None)
        for number, name in enumerate(names):
            value = plain[prompt, number, sample]
            add(plan, name, prompt, sample, value, value, None)
        for number, head in enumerate(heads):
            value = ablated[prompt, number, sample]
            said = value if harmful is None else harmful[prompt, number, sample]
            add(plan, str(head), prompt, sample, value, said, names[batch[number]])
    return pd.DataFrame(rows)


def null(chance: np.random.Generator, samples: int, plain_rows: int) -> tuple[Matrix, Matrix]:
    """Differences and plain values (prompts, heads) of a map of heads that do not matter.

    Each prompt has its own rate; answers are drawn with it, whatever is ablated, and so are the plain rows of batches.
    """
    prompts, heads = 24, 16
    rate = chance.beta(0.4, 1.2, size=(prompts, 1, 1))
    ablated = (chance.random((prompts, heads, samples)) < rate).mean(axis=2)
    rows = (chance.random((prompts, plain_rows, samples)) < rate).mean(axis=2)
    plain = rows[:, np.arange(heads) * plain_rows // heads]
    return ablated - plain, plain


@pytest.mark.parametrize(("samples", "plain_rows"), list(product((1, 3), (1, 2))))
def test_of_heads_that_do_not_matter_the_test_rejects_no_more_than_its_level(samples: int, plain_rows: int) -> None:
    chance = np.random.default_rng([samples, plain_rows])
    found = [permuted(*null(chance, samples, plain_rows), permutations=199, seed=at) for at in range(500)]
    rejected = np.mean([one.p_value <= 0.05 for one in found])
    assert 0.02 <= rejected <= 0.06


def test_to_deal_among_all_heads_would_take_noise_between_batches_for_an_effect_of_heads() -> None:
    chance = np.random.default_rng(7)
    _, plain = null(chance, 1, 2)
    plain[:, 8:] = 1 - plain[:, :1]  # each batch has the other answer
    ablated = plain.copy()  # and no head does anything
    shifted = ablated - plain[:, :1]
    assert permuted(ablated - plain, plain).p_value == 1
    assert permuted(shifted, 0 * plain).p_value < 0.01


def test_planted_heads_survive_and_no_other() -> None:
    chance = np.random.default_rng(3)
    prompts, heads = 60, 32
    ablated = (chance.random((prompts, heads, 1)) < 0.02).astype(float)
    ablated[:30, 11] = ablated[30:, 22] = 1  # each frees its half
    found = maps(verdicts(ablated, np.zeros((prompts, 1, 1))))
    row = found.maps.iloc[0]
    assert (row["up"], row["down"], row["n"], row["n_heads"], row["needed"]) == (2, 0, 60, 32, 11)
    assert row["p_value"] == 1 / 2001
    assert row["highest"] >= 0.5 > 0.2 > row["expected_highest"]
    survivors = found.by_head[found.by_head["p_adjusted"] < 0.05]
    assert list(zip(survivors["layer"], survivors["head"])) == [(1, 3), (2, 6)]


def test_heads_that_hold_refusal_back_count_the_same() -> None:
    chance = np.random.default_rng(4)
    ablated = (chance.random((40, 8, 1)) < 0.9).astype(float)
    ablated[:, 5] = 0
    plain = (chance.random((40, 1, 1)) < 0.9).astype(float)
    one, other = (maps(verdicts(abs(turn - ablated), abs(turn - plain))) for turn in (0, 1))
    assert (one.maps["down"][0], one.maps["up"][0]) == (1, 0)
    assert (other.maps["down"][0], other.maps["up"][0]) == (0, 1)
    for name, mirrored, sign in (("highest", "lowest", -1), ("p_value", "p_value", 1), ("spread", "spread", 1)):
        assert one.maps[name][0] == pytest.approx(sign * other.maps[mirrored][0])
    assert one.maps["expected_highest"][0] == pytest.approx(-other.maps["expected_lowest"][0], abs=0.01)
    np.testing.assert_allclose(one.by_head["effect"], -other.by_head["effect"])
    np.testing.assert_allclose(one.by_head["p_adjusted"], other.by_head["p_adjusted"])


def test_a_small_map_is_what_is_counted_by_hand() -> None:
    ablated = np.array([[1, 0], [1, 0], [0, 1]], dtype=float)[..., None]
    plain = np.array([[0], [0], [1]], dtype=float)[..., None]
    found = maps(verdicts(ablated, plain))
    assert list(found.maps) == COLUMNS and list(found.by_head) == COLUMNS_BY_HEAD
    heads, row = found.by_head, found.maps.iloc[0]
    assert heads["effect"].tolist() == [pytest.approx(1 / 3), pytest.approx(0)]
    assert heads[["up", "down"]].to_numpy().tolist() == [[2, 1], [0, 0]]
    assert heads["p_value"].tolist() == heads["p_adjusted"].tolist() == [1, 1]
    assert (row["highest"], row["lowest"], row["spread"]) == tuple(map(pytest.approx, (1 / 3, 0, 1 / 6)))
    # Of the 8 ways to deal (1, 0), (1, 0) among equal plain values and (-1, 0) for the third prompt, the means of the
    # heads are 1/3 and 0 six times, and 2/3 and -1/3 twice: both statistics are at least as large as the own one.
    assert row["p_value"] == 1
    assert row["expected_highest"] == pytest.approx(6 / 8 / 3 + 2 / 8 * 2 / 3, abs=0.02)
    assert row["expected_lowest"] == pytest.approx(-2 / 8 / 3, abs=0.02)
    q = (2 - 1) * (2 * (2**2 + 1**2) - 3**2) / (2 * 3 - 3)
    assert (row["cochran_q"], row["cochran_p"]) == (pytest.approx(q), pytest.approx(chi2.sf(q, 1)))


def test_the_judges_own_verdict_has_columns_of_its_own() -> None:
    ablated = np.zeros((20, 4, 1))
    harmful = ablated.copy()
    harmful[:, 2] = 1  # such as loops, which are not coherent
    found = maps(verdicts(ablated, np.zeros((20, 1, 1)), harmful=harmful))
    row = found.maps.iloc[0]
    assert (row["up"], row["up_asr"], row["p_value"], row["highest_asr"]) == (0, 1, 1, 1)
    assert row["p_value_asr"] == 1 / 2001
    assert found.by_head["effect_asr"].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("ablated", "plain"),
    [
        (np.zeros((5, 4, 1)), np.zeros((5, 1, 1))),
        (np.ones((5, 4, 1)), np.ones((5, 1, 1))),
        (np.ones((5, 4, 1)), np.zeros((5, 1, 1))),
        (np.ones((5, 1, 1)), np.zeros((5, 1, 1))),
        (np.ones((1, 4, 1)), np.zeros((1, 1, 1))),
    ],
)
def test_where_nothing_tells_heads_apart_nothing_is_null_and_nothing_rejects(ablated: Matrix, plain: Matrix) -> None:
    row = maps(verdicts(ablated, plain)).maps.iloc[0]
    assert not row.isna().any()
    assert (row["p_value"], row["cochran_q"], row["cochran_p"], row["spread"]) == (1, 0, 1, 0)


@pytest.mark.parametrize(("samples", "batches", "given"), [(1, 1, True), (3, 1, False), (1, 2, False)])
def test_cochrans_q_is_given_where_there_is_one_sample_and_one_plain_row(
    samples: int, batches: int, given: bool
) -> None:
    chance = np.random.default_rng(1)
    ablated = (chance.random((12, 6, samples)) < 0.5).astype(float)
    plain = np.arange(batches)[None, :, None] * np.ones((12, batches, samples))
    row = maps(verdicts(ablated, plain, np.arange(6) * batches // 6)).maps.iloc[0]
    assert pd.notna(row["cochran_q"]) == pd.notna(row["cochran_p"]) == given
    assert pd.notna(row["p_value"])


def test_the_order_of_rows_and_the_names_of_heads_do_not_matter() -> None:
    chance = np.random.default_rng(2)
    ablated = (chance.random((15, 6, 1)) < 0.4).astype(float)
    table = verdicts(ablated, (chance.random((15, 1, 1)) < 0.3).astype(float))
    one, other = maps(table), maps(table.sample(frac=1, random_state=0, ignore_index=True))
    pd.testing.assert_frame_equal(one.maps, other.maps)
    pd.testing.assert_frame_equal(one.by_head, other.by_head)
    renamed = {str(Head(0, number)): str(Head(3, 5 - number)) for number in range(6)}
    named = maps(table.assign(variant=table["variant"].replace(renamed)))
    pd.testing.assert_frame_equal(named.maps, one.maps)
    np.testing.assert_allclose(named.by_head["effect"], one.by_head["effect"][::-1])


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=5, max_size=5), min_size=1, max_size=6))
def test_what_is_expected_encloses_the_mean_and_a_constant_changes_nothing_but_it(rows: list[list[float]]) -> None:
    differences = np.array(rows)
    plain = np.zeros_like(differences)
    found, moved = (permuted(differences + by, plain, permutations=99) for by in (0, 0.25))
    assert found.expected_lowest - 1e-9 <= differences.mean() <= found.expected_highest + 1e-9
    assert (moved.p_value, moved.expected_spread) == tuple(map(pytest.approx, (found.p_value, found.expected_spread)))
    assert moved.expected_highest == pytest.approx(found.expected_highest + 0.25)
    assert 1 / 100 <= found.p_value <= 1


@pytest.mark.parametrize("count", [1, 3, 12, 40])
def test_values_are_dealt_to_different_heads_and_to_all_alike(count: int) -> None:
    sums, heads = np.zeros((20_000, 50)), np.arange(5, 45)
    values = np.arange(1.0, count + 1)
    module._deal(sums, heads, values, np.random.default_rng(0))
    assert not sums[:, :5].any() and not sums[:, 45:].any()
    assert (np.sort(sums, axis=1)[:, -count:] == values).all()
    assert (np.count_nonzero(sums, axis=1) == count).all()
    np.testing.assert_allclose(sums[:, heads].mean(axis=0), values.sum() / 40, rtol=0.25)


@pytest.mark.parametrize(("heads", "prompts"), [(1024, 16), (32, 11), (336, 14), (1, 6), (16, 10)])
def test_so_many_prompts_must_flip_one_way(heads: int, prompts: int) -> None:
    assert needed(heads) == prompts
    for flips, survives in ((prompts, True), (prompts - 1, False)):
        ablated = np.zeros((max(prompts, 20), heads, 1))
        ablated[:flips, 0] = 1
        assert (module._of_heads(ablated[..., 0], 0 * ablated[..., 0])["p_adjusted"][0] < 0.05) == survives


def test_maps_are_of_single_and_each_plans_alone_and_there_may_be_none() -> None:
    table = verdicts(np.zeros((3, 4, 1)), np.zeros((3, 1, 1)))
    each = verdicts(np.zeros((3, 2, 1)), np.zeros((3, 1, 1)), plan="each-mine")
    both = maps(pd.concat([table, each[each["plan"] != "none"]]))
    assert both.maps["plan"].tolist() == ["each-mine", "single"]
    assert both.maps["n_heads"].tolist() == [2, 4]
    none = maps(table[table["plan"] == "none"])
    assert list(none.maps) == COLUMNS and list(none.by_head) == COLUMNS_BY_HEAD
    assert len(none.maps) == len(none.by_head) == 0
