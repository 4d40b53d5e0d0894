"""Sahara on centred states: the plain model's mean, for plain and ablated states alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import subspace_angles
from transformers import PreTrainedModel

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.sahara import sahara
from safetyheads.attribution.sahara_centred import sahara_centred
from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import Top
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

LENGTHS = [6, 3, 9, 6, 4, 7]
UA = Ablation(Kind.UNDIFFERENTIATED)


def frame(token_ids: list[list[int]]) -> pd.DataFrame:
    return pd.DataFrame({"query_id": [f"q-{number:04d}" for number in range(len(token_ids))], "token_ids": token_ids})


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("representation", ["final_norm", "residual"])
def test_every_step_scores_the_group_with_each_further_head(
    representation: Any,
    rank: int,
    mini: Callable[..., PreTrainedModel],
    sequences: Callable[..., list[list[int]]],
    whole: Callable[..., Top],
    tmp_path: Path,
) -> None:
    """The whole search, by a second computation: states of single prompts, NumPy's SVD, SciPy's angles."""
    model, token_ids = install(mini("llama_gqa")), sequences(LENGTHS)
    given: dict[str, Any] = {"steps": 2, "rank": rank, "representation": representation, "token_budget": 300}
    found = sahara_centred(model, frame(token_ids), UA, **given, parts=Parts(tmp_path / "a"))
    plainly = sahara(model, frame(token_ids), UA, **given, parts=Parts(tmp_path / "b"))
    assert not np.allclose(found["score"], plainly["score"][: len(found)], rtol=0.01)

    def states(heads: HeadSet) -> np.ndarray:
        tops = [whole(model, ids, UA, heads) for ids in token_ids]
        return np.stack([getattr(top, representation)[0].double().numpy() for top in tops])

    def vectors(heads: HeadSet) -> np.ndarray:
        return np.linalg.svd(states(heads) - centre, full_matrices=False)[0][:, :rank]

    centre, group = states(()).mean(axis=0), ()
    plain = vectors(())
    for step in (1, 2):
        rows = found[found["step"] == step]
        keys = [Head(*key) for key in zip(rows["layer"], rows["head"])]
        assert keys == sorted(set(all_heads(3, 4)) - set(group))
        expected = [np.degrees(subspace_angles(plain, vectors((*group, key)))).sum() for key in keys]
        np.testing.assert_allclose(rows["score"], expected, rtol=1e-3, atol=2e-3)
        group = (*group, keys[int(np.argmax(expected))])
        assert keys[int(np.flatnonzero(rows["selected"])[0])] == group[-1]
