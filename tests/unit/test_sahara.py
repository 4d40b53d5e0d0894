"""Sahara: the golden steps, and the laws of its angles, its greedy choice and its parts."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from test_ships import Interrupted, Mini, Sequences, frame, golden_prompts
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution import sahara as module
from safetyheads.attribution.sahara import angle, left_singular_vectors, sahara
from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

LENGTHS = [6, 3, 9, 6, 4, 7]


def search(model: PreTrainedModel, prompts: pd.DataFrame, folder: Path, **settings: Any) -> pd.DataFrame:
    given = {"steps": 3, "rank": 1, "representation": "final_norm", "token_budget": 300, **settings}
    ablation = given.pop("ablation", Ablation(Kind.SCALING))
    given.setdefault("parts", Parts(folder / f"{np.random.default_rng().integers(2**60)}.parquet"))
    return sahara(model, prompts, ablation, **given)


@pytest.mark.parametrize(("states", "kind"), [("q", Kind.UNDIFFERENTIATED), ("v", Kind.SCALING)])
def test_the_steps_are_the_golden_ones(
    states: str,
    kind: Kind,
    golden: Path,
    tiny_a: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tmp_path: Path,
) -> None:
    prompts = golden_prompts(golden, "## Query:{query}\n## Answer:", tokenizer)
    found = search(tiny_a, prompts, tmp_path, ablation=Ablation(kind), token_budget=2048)
    table = pd.read_parquet(golden / "tiny_a-sahara.parquet").query("mask_qkv == @states")
    table = table.assign(step=table["step"] + 1)
    both = found.merge(table, on=["step", "layer", "head"], how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    assert len(both) == 16 + 15 + 14
    assert (both["score"] - both["angle_deg_f64"]).abs().max() < 0.02
    assert (both["selected_x"] == both["selected_y"]).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("representation", ["final_norm", "residual"])
def test_every_step_scores_the_group_with_each_further_head(
    representation: str, rank: int, mini: Mini, sequences: Sequences, whole: Callable[..., Top], tmp_path: Path
) -> None:
    """The whole search, by a second computation: states of single prompts, NumPy's SVD, SciPy's angles."""
    model, token_ids = install(mini("llama_gqa")), sequences(LENGTHS)
    ablation = Ablation(Kind.UNDIFFERENTIATED)
    found = search(model, frame(token_ids), tmp_path, ablation=ablation, rank=rank, representation=representation)

    def vectors(heads: HeadSet) -> np.ndarray:
        tops = [whole(model, ids, ablation, heads) for ids in token_ids]
        matrix = np.stack([getattr(top, representation)[0].double().numpy() for top in tops])
        return np.linalg.svd(matrix, full_matrices=False)[0][:, :rank]

    group: HeadSet = ()
    plain = vectors(group)
    for step in (1, 2, 3):
        rows = found[found["step"] == step]
        keys = [Head(*key) for key in zip(rows["layer"], rows["head"])]
        assert keys == sorted(set(all_heads(3, 4)) - set(group))
        expected = [np.degrees(subspace_angles(plain, vectors((*group, key)))).sum() for key in keys]
        np.testing.assert_allclose(rows["score"], expected, rtol=1e-4, atol=1e-3)
        assert rows["selected"].sum() == 1
        best = keys[int(np.argmax(rows["score"]))]
        assert keys[int(np.flatnonzero(rows["selected"])[0])] == best
        group = (*group, best)


def test_the_two_representations_differ(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama")), frame(sequences(LENGTHS))
    first, second = (search(model, prompts, tmp_path, representation=name) for name in ("final_norm", "residual"))
    assert not np.allclose(first["score"][:12], second["score"][:12], rtol=0.01)


def test_neither_the_order_of_prompts_nor_the_token_budget_matters(
    mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama")), frame(sequences(LENGTHS))
    whole = search(model, prompts, tmp_path, token_budget=10_000, rank=2, steps=2)
    for budget in (1, 60):
        other = search(model, prompts.iloc[::-1], tmp_path, token_budget=budget, rank=2, steps=2)
        pd.testing.assert_frame_equal(other, whole, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("memory", [1, 6 * 32 * 8 * 3])
def test_how_many_candidates_are_scored_together_changes_no_bit(
    memory: int, mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = install(mini("llama")), frame(sequences(LENGTHS))
    whole = search(model, prompts, tmp_path, token_budget=60, steps=2)
    monkeypatch.setattr(module, "MEMORY", memory)
    assert search(model, prompts, tmp_path, token_budget=60, steps=2).equals(whole)


def test_of_equal_scores_the_lowest_layer_then_head_is_chosen(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("llama"))
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()  # no head changes anything
    found = search(model, frame(sequences([6] * 5)), tmp_path, token_budget=10_000)
    assert found["score"].max() < 1e-4
    for _, rows in found.groupby("step"):
        highest = rows[rows["score"] == rows["score"].max()].iloc[0]
        assert highest["selected"]


def test_of_equal_angles_the_first_is_chosen(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "angle", lambda *_: 1.0)
    found = search(install(mini("llama")), frame(sequences(LENGTHS)), tmp_path, steps=5)
    chosen = found[found["selected"]]
    assert list(zip(chosen["layer"], chosen["head"])) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


def test_all_heads_can_be_chosen_but_no_more(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, prompts = install(mini("llama", num_hidden_layers=1)), frame(sequences(LENGTHS))
    found = search(model, prompts, tmp_path, steps=4)
    assert found.groupby("step").size().tolist() == [4, 3, 2, 1]
    chosen = found[found["selected"]]
    assert sorted(zip(chosen["layer"], chosen["head"])) == [(0, head) for head in range(4)]
    with pytest.raises(SafetyHeadsError, match="cannot choose 5 heads: the model has 4"):
        search(model, prompts, tmp_path, steps=5)


@pytest.mark.parametrize("rank", [0, 6, 7])
def test_a_rank_that_says_nothing_is_an_error(rank: int, mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    with pytest.raises(SafetyHeadsError, match=f"rank {rank} with 6 prompts: .*less than the number of prompts"):
        search(install(mini("llama")), frame(sequences(LENGTHS)), tmp_path, rank=rank)


def test_a_rank_above_that_of_the_states_is_an_error(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    same = frame(sequences([6]) * 5)
    search(install(mini("llama")), same, tmp_path, rank=1, steps=1)
    with pytest.raises(SafetyHeadsError, match=r"rank 2 is more than the numerical rank of the prompts' states, 1\."):
        search(install(mini("llama")), same, tmp_path, rank=2)


def test_a_loose_subspace_is_warned_about(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts = install(mini("llama")), frame(sequences(LENGTHS))
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(module, "GAP", 1.0)
        search(model, prompts, tmp_path, steps=1)
        assert not caplog.records
        monkeypatch.setattr(module, "GAP", 1e9)
        search(model, prompts, tmp_path, steps=1)
    assert "for 12 of 12 groups sigma_1 / sigma_2 is below" in caplog.text


def test_a_restarted_run_warns_of_what_it_finds_done(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts = install(mini("llama")), frame(sequences(LENGTHS))
    parts = Parts(tmp_path / "a.parquet", "same")
    first = search(model, prompts, tmp_path, steps=1, parts=parts)
    monkeypatch.setattr(module, "GAP", 1e9)
    monkeypatch.setattr(Parts, "save", None)  # all is there
    with caplog.at_level(logging.WARNING):
        assert search(model, prompts, tmp_path, steps=1, parts=parts).equals(first)
    assert "for 12 of 12 groups sigma_1 / sigma_2 is below" in caplog.text


@pytest.mark.parametrize("after", [1, 2, 5, 8])
def test_an_interrupted_run_goes_on_where_it_stopped(
    after: int, mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = install(mini("llama")), frame(sequences([6, 3, 6]))
    saved: list[str] = []
    original, limit = Parts.save, after

    def counted(parts: Parts, name: str, part: np.ndarray) -> None:
        if len(saved) == limit:
            raise Interrupted
        saved.append(name)
        original(parts, name, part)

    monkeypatch.setattr(Parts, "save", counted)
    with pytest.raises(Interrupted):
        search(model, prompts, tmp_path, token_budget=60, parts=Parts(tmp_path / "a.parquet", "same"))
    limit = 10_000
    parts = Parts(tmp_path / "a.parquet", "same")
    resumed = search(model, prompts, tmp_path, token_budget=60, parts=parts)
    made = list(saved)
    assert made == [f"step-{step}-layer-{layer:04d}" for step in (1, 2, 3) for layer in range(3)], "none twice"
    assert resumed.equals(search(model, prompts, tmp_path, token_budget=60))
    assert made == saved[len(made) :]
    assert search(model, prompts, tmp_path, token_budget=60, parts=parts).equals(resumed)
    assert len(saved) == 2 * len(made)


MATRICES = st.tuples(st.integers(2, 30), st.integers(1, 30), st.integers(0, 2**32), st.integers(1, 6)).filter(
    lambda case: case[3] <= min(case[:2])
)


@given(MATRICES)
def test_vectors_and_angles_are_those_of_the_singular_value_decomposition(case: tuple[int, int, int, int]) -> None:
    rows, columns, seed, rank = case
    generator = np.random.default_rng(seed)
    spectrum = np.diag(2.0 ** -np.arange(min(rows, columns)))
    left = [np.linalg.qr(generator.normal(size=(rows, len(spectrum))))[0] for _ in range(2)]
    right = np.linalg.qr(generator.normal(size=(columns, len(spectrum))))[0]
    first, second = (side @ spectrum @ right.T for side in left)
    vectors, gaps = left_singular_vectors(torch.tensor(np.stack([first, second])), rank)
    found = list(zip(vectors, gaps))
    for matrix, (vectors, gap) in zip((first, second), found):
        expected = np.linalg.svd(matrix)[0][:, :rank]
        assert vectors.shape == (rows, rank)
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-9)
        assert np.degrees(subspace_angles(expected, vectors)).max() < 1e-4
        np.testing.assert_allclose(gap, 2.0 if rank < len(spectrum) else np.inf, rtol=1e-6)
    expected_angle = np.degrees(
        subspace_angles(np.linalg.svd(first)[0][:, :rank], np.linalg.svd(second)[0][:, :rank])
    ).sum()
    np.testing.assert_allclose(angle(found[0][0], found[1][0]), expected_angle, atol=1e-3)


@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 2**32), st.sampled_from([-1.0, 1.0]))
def test_an_angle_is_blind_to_signs_and_zero_for_the_same(rows: int, columns: int, seed: int, sign: float) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.normal(size=(2, rows, columns))
    u, v = left_singular_vectors(torch.tensor(np.stack([first, second])), 1)[0]
    assert angle(u, sign * u) < 1e-6
    np.testing.assert_allclose(angle(u, v), angle(sign * u, v), atol=1e-9)
    np.testing.assert_allclose(angle(u, v), angle(v, u), atol=1e-9)
    assert 0 <= angle(u, v) <= 90 + 1e-9
    cosine = abs(float(u[:, 0] @ v[:, 0]))
    np.testing.assert_allclose(np.cos(np.radians(angle(u, v))), cosine, atol=1e-12)


@pytest.mark.parametrize("degrees", [1e-6, 1e-3, 0.5, 44.0, 89.9])
def test_small_angles_are_not_lost(degrees: float) -> None:
    turned = np.array([[np.cos(np.radians(degrees))], [np.sin(np.radians(degrees))], [0.0]])
    np.testing.assert_allclose(angle(np.array([[1.0], [0.0], [0.0]]), turned), degrees, rtol=1e-6)


def test_angles_of_a_plane_add_up() -> None:
    first = np.eye(4)[:, :2]
    turn = np.radians([10.0, 30.0])
    second = np.stack([np.r_[np.cos(turn[0]), 0, np.sin(turn[0]), 0], np.r_[0, np.cos(turn[1]), 0, np.sin(turn[1])]], 1)
    np.testing.assert_allclose(angle(first, second), 40.0)


@given(st.integers(1, 5), st.integers(0, 2**32), st.booleans())
def test_the_rank_of_a_matrix_is_told(rank: int, seed: int, tall: bool) -> None:
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(12, rank)) @ generator.normal(size=(rank, 20))
    matrix = matrix.T if tall else matrix
    both = torch.tensor(np.stack([matrix, matrix + generator.normal(size=matrix.shape)]))
    assert left_singular_vectors(both, rank)[0].shape == (2, len(matrix), rank)
    with pytest.raises(SafetyHeadsError, match=f"numerical rank of the prompts' states, {rank}"):
        left_singular_vectors(both, rank + 1)


def test_the_state_may_be_narrower_than_the_model(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model = install(mini("opt", do_layer_norm_before=False, word_embed_proj_dim=16))
    assert len(search(model, frame(sequences(LENGTHS)), tmp_path, steps=1)) == 12


def test_a_loose_plain_subspace_is_warned_about(
    mini: Mini, sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GAP", 1e9)
    with caplog.at_level(logging.WARNING):
        search(install(mini("llama")), frame(sequences(LENGTHS)), tmp_path, steps=1)
    assert "Plain model: sigma_1 / sigma_2 is" in caplog.text


@pytest.mark.parametrize("read", [1, 2, 5, 9])
def test_a_second_copy_of_the_job_may_delete_the_parts_at_any_time(
    read: int, mini: Mini, sequences: Sequences, tmp_path: Path
) -> None:
    model, prompts = install(mini("llama_gqa")), frame(sequences(LENGTHS))
    alone = search(model, prompts, tmp_path, token_budget=60)
    reads: list[str] = []

    class Shared(Parts):
        def load(self, name: str) -> np.ndarray | None:
            reads.append(name)
            if len(reads) == read:
                self.remove()
            return super().load(name)

    parts = Shared(tmp_path / "shared.parquet", "same inputs")
    assert search(model, prompts, tmp_path, token_budget=60, parts=parts).equals(alone)
    assert len(reads) >= read
