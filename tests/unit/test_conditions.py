"""Cells are compared only with a plain model's that were made under the same conditions."""

from typing import Any

import pytest

from safetyheads.artifacts.provenance import versions
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.conditions import CONFIGURATION, check_comparable, mixed

PLAIN = "completions/m/d/t/plain/none/greedy.parquet"
SHIPS = "completions/m/d/t/scaling/ships-1/greedy.parquet"
RANDOM = "completions/m/d/t/scaling/random-1/greedy.parquet"
OTHER = "completions/other/d/t/plain/none/greedy.parquet"


def record(**changes: Any) -> dict[str, Any]:
    installed = versions()
    made = {library: changes.pop(library, installed[library]) for library in ("torch", "transformers")}
    return {"dtype": "float32", "attention": "sdpa", "device": "cpu", "versions": made, **changes}


ALIKE = {PLAIN: record(), SHIPS: record(), RANDOM: record(), OTHER: record(dtype="bfloat16")}


def test_cells_of_the_same_conditions_pass_and_other_models_and_stages_do_not_matter() -> None:
    assert mixed(ALIKE | {"ships/m/d/t/scaling.parquet": record(dtype="float16")}) == []
    check_comparable(ALIKE, "results")


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"attention": "eager"},
        {"device": "NVIDIA H100"},
        {"torch": "1.0"},
        {"transformers": "1.0"},
    ],
)
def test_a_cell_that_differs_is_named_with_what_differs_and_the_command(
    change: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIGURATION, "--configfile my-study.yaml")
    with pytest.raises(SafetyHeadsError) as error:
        check_comparable(ALIKE | {SHIPS: record(**change)}, "out")
    said, ((key, value),) = str(error.value), change.items()
    plain = record()
    assert f"out/{SHIPS}: {key} {value} (plain: {plain.get(key, plain['versions'].get(key))})" in said
    assert RANDOM not in said
    # Conditions that can be had today are kept where there are such; of two, those of most files.
    again = {"torch": SHIPS, "transformers": SHIPS}.get(key)
    command = next(line for line in said.splitlines() if line.startswith("Make them anew: "))
    assert "snakemake --cores 1 --configfile my-study.yaml --forcerun out/completions/m/d/t/" in command
    assert again is None or command.endswith(f"--forcerun out/{again}")
    assert "compute: {mixed: true}" in said


def test_the_plain_model_is_made_anew_where_it_is_the_odd_one_out() -> None:
    records = {PLAIN: record(), SHIPS: record(dtype="bfloat16"), RANDOM: record(dtype="bfloat16")}
    with pytest.raises(SafetyHeadsError, match=rf"--forcerun results/{PLAIN}\n"):
        check_comparable(records, "results")


def test_all_are_made_anew_where_none_can_be_had_with_the_versions_of_today() -> None:
    records = {PLAIN: record(torch="1.0"), SHIPS: record(torch="1.1")}
    with pytest.raises(SafetyHeadsError, match=rf"--forcerun results/{PLAIN} results/{SHIPS}\n"):
        check_comparable(records, "results")


def test_shards_that_ran_on_several_kinds_of_device_are_mixed_in_themselves() -> None:
    both = record(device=["A100", "H100"])
    assert [one.path for one in mixed({PLAIN: both, SHIPS: both})] == [PLAIN, SHIPS]


def test_many_files_are_counted_but_the_command_has_all() -> None:
    many = {f"completions/m/d/t/scaling/random-{n}/greedy.parquet": record(dtype="float16") for n in range(1, 9)}
    with pytest.raises(SafetyHeadsError) as error:
        check_comparable({PLAIN: record()} | many, "my results")
    said = str(error.value)
    assert "and 3 more" in said
    assert said.count(": dtype float16 (plain: float32)") == 5
    command = next(line for line in said.splitlines() if line.startswith("Make them anew: "))
    assert command.endswith(f"--forcerun 'my results/{PLAIN}'"), "the one file that differs from the eight, quoted"


@pytest.mark.parametrize("key", ["dtype", "device", "torch"])
def test_shards_of_different_conditions_are_mixed_in_themselves_whatever_differs(key: str) -> None:
    from safetyheads.artifacts.provenance import common

    both = common([record(), record(**{key: "another"})])
    found = mixed({PLAIN: both, SHIPS: both})
    assert [one.path for one in found] == [PLAIN, SHIPS]
    assert all(key in one.words and "another" in one.words for one in found)
