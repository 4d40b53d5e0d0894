"""Displacement: the distance that ablating a group moves the states, by a second computation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_ships import Mini, Sequences, frame

from safetyheads.artifacts.parts import Parts
from safetyheads.attribution.displacement import displacement
from safetyheads.engine.ablation import install
from safetyheads.engine.partial_forward import Top
from safetyheads.errors import SafetyHeadsError
from safetyheads.heads import Ablation, Head, HeadSet, Kind, all_heads

LENGTHS, ABLATION = [6, 3, 9, 6, 4, 7], Ablation(Kind.UNDIFFERENTIATED)


def test_every_step_scores_the_distance_that_the_group_moves_the_states(
    mini: Mini, sequences: Sequences, whole: Callable[..., Top], tmp_path: Path
) -> None:
    model, token_ids = install(mini("llama_gqa")), sequences(LENGTHS)
    found = displacement(model, frame(token_ids), ABLATION, steps=3, token_budget=60, parts=Parts(tmp_path / "a"))

    def states(heads: HeadSet) -> np.ndarray:
        tops = [whole(model, ids, ABLATION, heads) for ids in token_ids]
        return np.stack([top.final_norm[0].double().numpy() for top in tops])

    plain, group = states(()), ()
    spread = np.linalg.norm(plain - plain.mean(axis=0))
    for step in (1, 2, 3):
        rows = found[found["step"] == step]
        keys = [Head(*key) for key in zip(rows["layer"], rows["head"])]
        assert keys == sorted(set(all_heads(3, 4)) - set(group))
        expected = [np.linalg.norm(states((*group, key)) - plain) / spread for key in keys]
        np.testing.assert_allclose(rows["score"], expected, rtol=1e-4)
        best = keys[int(np.argmax(rows["score"]))]
        assert [key for key, chosen in zip(keys, rows["selected"]) if chosen] == [best]
        group = (*group, best)


def test_one_prompt_has_no_spread_to_measure_by(mini: Mini, sequences: Sequences, tmp_path: Path) -> None:
    model, (ids,) = install(mini("llama")), sequences([5])
    prompts = pd.DataFrame({"query_id": ["a", "b"], "token_ids": [list(ids)] * 2})
    with pytest.raises(SafetyHeadsError, match="no spread to measure by"):
        displacement(model, prompts, ABLATION, steps=1, token_budget=60, parts=Parts(tmp_path / "a"))
