"""Estimates: laws of the cost model, shards that are balanced, and what is unknown is said to be."""

import random
from pathlib import Path
from typing import Any

import pytest

from safetyheads.config.load import Config, load_config
from safetyheads.costs.flops import Work
from safetyheads.costs.job_costs import BATCHES_OF_SHARD, Estimates, Job, seconds
from safetyheads.engine.batches import padded

CELL = ("llama-2-7b-chat", "advbench", "direct")


def config(**sections: Any) -> Config:
    study = {
        "models": ["llama-2-7b-chat"],
        "datasets": ["advbench"],
        "templates": ["direct"],
        "ablations": ["undifferentiated"],
        "plans": ["single"],
        "decodings": ["greedy"],
        "judges": ["paper"],
    }
    return load_config({**sections, "studies": {"main": study}})


def known(job: Job | None) -> Job:
    assert job is not None
    return job


def computing(found: Estimates, plan: str, decoding: str = "greedy") -> float:
    """Seconds of the work alone: what half of a job lacks, twice."""
    whole, half = (known(found.completions(*CELL, plan, decoding, shards)).seconds for shards in (1, 2))
    return 2 * (whole - half)


def test_the_work_grows_with_head_sets_samples_and_steps() -> None:
    """But for prompts, which head sets share: decoding is the most of it."""
    decodings = {name: {"top_k": 5, "samples": samples} for name, samples in (("five", 5), ("ten", 10))}
    found = Estimates(config(random={"draws": 64}, decodings=decodings, attribution={"steps": 4}))
    assert computing(found, "single") / computing(found, "random-3") == pytest.approx(1024 / 64, rel=0.1)
    assert computing(found, "single", "ten") / computing(found, "single", "five") == pytest.approx(2, rel=0.1)
    assert computing(found, "sahara-3") == computing(found, "ships-3") == computing(found, "none")
    assert computing(found, "top-3@advbench") == computing(found, "none")
    ships, four = known(found.scores("ships", *CELL)).seconds, known(found.scores("sahara", *CELL)).seconds
    seven = known(Estimates(config(attribution={"steps": 7})).scores("sahara", *CELL)).seconds
    assert four > ships
    assert seven - four == pytest.approx(four - ships), "a step of Sahara costs as much as Ships"


def test_checks_load_the_model_and_pass_it_a_thousand_tokens() -> None:
    on_gpu, on_cpu = (
        known(Estimates(config(compute={"device": device})).checks(CELL[0])) for device in ("cuda", "cpu")
    )
    assert 30 + 13 < on_gpu.seconds < 30 + 14 + 5
    assert on_gpu.host_memory == known(Estimates(config()).scores("ships", *CELL)).host_memory
    operations = 2 * 6.6e9 * (790 + 8 * 33)
    assert on_cpu.seconds - 27 == pytest.approx(operations / 0.085e12, rel=0.5)
    assert on_cpu.host_memory > 4 * 6.7e9
    assert Estimates(config(models={"new": {"repo": "someone/new"}})).checks("new") is None


def test_controls_and_maps_cost_as_many_head_sets_as_they_have() -> None:
    mine = {"mine": [f"L0{layer}H00" for layer in range(6)]}
    found = Estimates(config(random={"draws": 6, "matched": 6}, head_sets=mine))
    six = {plan: computing(found, plan) for plan in ("random-3", "matched-ships-2", "matched-mine", "each-mine")}
    assert set(six.values()) == {six["random-3"]} == {computing(found, "each-top-6")}
    twice = computing(Estimates(config(random={"matched": 12})), "matched-ships-2")
    assert 1.5 < twice / six["matched-ships-2"] < 2, "the plain rows and likelihoods are there once for both"
    assert computing(found, "each-sahara-1") > computing(found, "sahara-1"), "its batches hold plain rows"


def test_memory_holds_weights_and_on_a_cpu_a_batch() -> None:
    """A 7B model has 6.7e9 weights, and a token leaves keys and values of 4,096 numbers in each of 32 layers."""
    cell = (*CELL, "single", "greedy")
    on_gpu, small, large = (
        known(Estimates(config(compute=compute)).completions(*cell)).host_memory
        for compute in ({}, {"device": "cpu"}, {"device": "cpu", "token_budget": 16384})
    )
    assert 13.4e9 < on_gpu < 20e9
    assert small > 4 * 6.7e9 + 4 * 8192 * 32 * 2 * 4096
    assert large - small == pytest.approx(4 * 8192 * 32 * 2 * 4096, rel=0.4)


def test_a_gpu_computes_while_it_moves_and_a_cpu_before_and_after() -> None:
    nothing = Work(operations=0.0, moved=0.0, calls=0.0, batches=1, weights=0, batch=0)
    works = nothing._replace(operations=1e15), nothing._replace(moved=1e13), nothing._replace(calls=1e3)
    everything = nothing._replace(operations=1e15, moved=1e13, calls=1e3)
    for device, together in (("cpu", sum), ("a100", max)):
        operations, moved, calls = (seconds(each, device, "bfloat16", 1) for each in works)
        assert min(operations, moved, calls) > 0
        assert seconds(everything, device, "bfloat16", 1) == pytest.approx(together([operations, moved]) + calls)
    assert seconds(works[0], "cpu", "float32", 4) == pytest.approx(seconds(works[0], "cpu", "float32", 1) / 4)
    of_dtype = [seconds(works[0], "h100", dtype, 1) for dtype in ("bfloat16", "tf32", "float32")]
    assert of_dtype == sorted(set(of_dtype))


def test_an_own_rate_is_the_whole_story() -> None:
    """Twice as fast takes half of the time; scoring does not touch generation."""
    slow, fast = (
        Estimates(config(compute={"speed": {"generation": rate, "scoring": 7, "start": 1}})) for rate in (0.1, 0.2)
    )
    assert computing(slow, "single") == pytest.approx(2 * computing(fast, "single"))
    assert slow.scores("ships", *CELL) == fast.scores("ships", *CELL)


@pytest.mark.parametrize(
    ("device", "gpu", "expected"), [("cpu", True, "cpu"), ("cuda", False, "a100"), ("auto", True, "a100")]
)
def test_auto_is_the_device_of_the_jobs(device: str, gpu: bool, expected: str) -> None:
    assert Estimates(config(compute={"device": device}), gpu=gpu).device == expected
    assert Estimates(config(compute={"device": device, "speed": {"device": "h200"}}), gpu=gpu).device == "h200"


def test_auto_without_a_gpu_is_the_cpu_in_what_is_printed_but_not_in_shards() -> None:
    here, planned = (Estimates(config(compute={"shards": "auto"}), gpu=gpu) for gpu in (False, True))
    assert here.device == "cpu"
    assert here.shards(*CELL, "single", "greedy") == planned.shards(*CELL, "single", "greedy")


def test_unknown_sizes_are_none_and_one_shard(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = Estimates(
        config(
            models={"new": {"repo": "someone/new"}, "local": {"path": str(tmp_path)}},
            datasets={"new": {"url": "https://example.org/new.txt"}},
            compute={"shards": "auto"},
        )
    )
    for model, dataset in (("new", "advbench"), ("local", "advbench"), ("llama-2-7b-chat", "new")):
        assert found.scores("ships", model, dataset, "direct") is None
        assert found.scores("sahara", model, dataset, "direct") is None
        assert found.completions(model, dataset, "direct", "single", "greedy") is None
        assert found.shards(model, dataset, "direct", "single", "greedy") == 1


def test_a_repository_of_the_catalogue_is_known_by_any_name() -> None:
    declared = {"mine": {"repo": "meta-llama/Llama-2-7b-chat-hf", "revision": "main"}}
    found = Estimates(config(models=declared))
    assert found.scores("ships", "mine", "advbench", "direct") == found.scores("ships", *CELL)


def test_explicit_shards_are_taken_as_they_are() -> None:
    assert Estimates(config(compute={"shards": 7})).shards(*CELL, "none", "greedy") == 7


def test_auto_makes_jobs_of_about_an_hour_and_one_of_a_small_cell() -> None:
    found = Estimates(config(compute={"shards": "auto"}))
    assert found.shards(*CELL, "none", "greedy") == 1
    count = found.shards(*CELL, "single", "greedy")
    assert count > 2
    assert 2400 < known(found.completions(*CELL, "single", "greedy", count)).seconds < 5400


@pytest.mark.parametrize("budget", [512, 4096, 8192, 65536])
@pytest.mark.parametrize("rows", [40, 520, 50_000])
@pytest.mark.parametrize("spread", [0, 8, 60])
def test_shards_that_auto_allows_are_balanced_within_a_tenth(budget: int, rows: int, spread: int) -> None:
    """Whatever lengths the prompts have, counted in tokens, padding included."""
    lengths, new = random.Random(rows + spread), 128
    prompts = [[0] * lengths.randint(max(8, 24 - spread), 24 + spread) for _ in range(rows)]
    batches = padded(prompts, new, budget)
    costs = [len(batch) * (len(prompts[batch[0]]) + new) for batch in batches]
    for shards in {2, 3, 5, 8, 13, 64, len(batches) // BATCHES_OF_SHARD}:
        if 1 <= shards <= len(batches) // BATCHES_OF_SHARD:
            shares = [sum(costs[shard::shards]) for shard in range(shards)]
            assert max(shares) <= 1.1 * sum(shares) / shards
            assert min(shares) >= 0.9 * sum(shares) / shards


def test_no_more_shards_than_batches_can_be_shared_out_among() -> None:
    slow = {"generation": 1e-3}
    found = Estimates(config(compute={"shards": "auto", "speed": slow}))
    assert found.shards(*CELL, "none", "greedy") == max(1, 520 // (8192 // (22 + 128)) // BATCHES_OF_SHARD)
    large = Estimates(config(compute={"shards": "auto", "token_budget": 10**9, "speed": slow}))
    assert large.shards(*CELL, "single", "greedy") == 1
