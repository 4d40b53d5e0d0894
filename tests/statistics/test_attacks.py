"""What an attack changes of each head, by hand."""

import numpy as np
import pandas as pd
import pytest

from safetyheads.artifacts.schemas import STAGES
from safetyheads.statistics.attacks import COLUMNS, Attacked, attack_shifts, changed

ONE = Attacked("m", "d", "ua", "clean", "attack")
HEADS = [(0, 0), (0, 1), (1, 0)]


def rows(values: dict[str, list[list[float]]], queries: list[str]) -> pd.DataFrame:
    """Rows of query x head; `values` has for each column a list for each query."""
    table = [
        {"query_id": query, "layer": layer, "head": head, **{name: of[at][place] for name, of in values.items()}}
        for at, query in enumerate(queries)
        for place, (layer, head) in enumerate(HEADS)
    ]
    return pd.DataFrame(table).sample(frac=1, random_state=0)


def study(shift: float = -1.0) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Two queries that both templates have, and one of the clean one. L00H01 loses 2 and 4, and no longer looks."""
    clean = {"score": [[1, 5, 0], [1, 7, 0], [9, 9, 9]], "refusal_shift": [[shift] * 3] * 3}
    attack = {"score": [[1, 3, 1], [1, 3, 0]], "refusal_shift": [[np.nan] * 3] * 2}
    ships = {"clean": rows(clean, ["q-0", "q-1", "q-2"]), "attack": rows(attack, ["q-0", "q-1"])}
    looks = {"clean": [[0.5, 0.9, 0.2]] * 3, "attack": [[0.5, 0.1, 0.2]] * 2}
    attention = {name: rows({"to_query": of}, ["q-0", "q-1", "q-2"][: len(of)]) for name, of in looks.items()}
    return ships, attention


def test_changes_are_means_over_the_queries_that_both_templates_have() -> None:
    found = attack_shifts(ONE, *study())
    assert list(found) == COLUMNS == STAGES["attacks"].columns.split()
    assert list(zip(found["layer"], found["head"])) == HEADS
    assert (found["n"] == 2).all() and set(found["attack"]) == {"attack"}
    assert found["score_clean"].tolist() == [1, 6, 0] and found["score_attack"].tolist() == [1, 3, 0.5]
    assert found["score_change"].tolist() == [0, -3, 0.5]
    assert found["to_query_change"].tolist() == pytest.approx([0, -0.8, 0])


def test_the_interval_is_that_of_resampled_queries() -> None:
    found = attack_shifts(ONE, *study()).set_index(["layer", "head"])
    changed, unsure = found.loc[(0, 1)], found.loc[(1, 0)]
    assert (changed["score_change_low"], changed["score_change_high"]) == (-4, -2)
    assert (unsure["score_change_low"], unsure["score_change_high"]) == (0, 1)


def test_what_is_missing_under_the_attack_is_null_and_nothing_else() -> None:
    found = attack_shifts(ONE, *study())
    assert found["refusal_shift_clean"].tolist() == [-1, -1, -1]
    missing = [f"refusal_shift_{end}" for end in ("attack", "change", "change_low", "change_high")]
    assert found[missing].isna().all(axis=None) and found.drop(columns=missing).notna().all(axis=None)


def test_one_query_has_no_interval_and_no_head_that_is_changed() -> None:
    ships, attention = study()
    one = {
        name: {key: of[of["query_id"] == "q-0"] for key, of in some.items()}
        for name, some in (("ships", ships), ("attention", attention))
    }
    found = attack_shifts(ONE, one["ships"], one["attention"])
    assert found["score_change"].tolist() == [0, -2, 1]
    assert found[["score_change_low", "to_query_change_high"]].isna().all(axis=None) and not changed(found).any()


def test_a_change_that_rounding_makes_is_none() -> None:
    sure = pd.DataFrame({"score_change": [-2.0, 1e-7, 0.02, 0.02], "score_change_low": [-3.0, 1e-8, 0.01, -0.1]})
    assert changed(sure.assign(score_change_high=[-1.0, 1e-6, 0.03, 0.1])).tolist() == [True, False, True, False]
