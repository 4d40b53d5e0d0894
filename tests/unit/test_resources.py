"""What jobs ask for follows from the size of the work, the attempt and the profile's limit."""

from typing import Any

import pytest

from safetyheads.config.load import Config, load_config
from safetyheads.jobs.cells import Cells
from safetyheads.jobs.resources import LEAST_MINUTES, UNKNOWN, Requests, on_gpu

KEYS = {"model": "llama-2-7b-chat", "dataset": "advbench", "template": "simple", "ablation": "scaling"}
SINGLE = {**KEYS, "plan": "single", "decoding": "greedy"}
NONE = {**KEYS, "ablation": "plain", "plan": "none", "decoding": "greedy"}


def config(**compute: Any) -> Config:
    study = {
        **{"models": ["llama-2-7b-chat", "unknown"], "datasets": ["advbench"], "templates": ["simple"]},
        **{"ablations": ["scaling"], "plans": ["single"], "decodings": ["greedy"], "judges": ["paper"]},
    }
    models = {"unknown": {"repo": "somebody/something", "gpus": 4, "dtype": "float16"}, "taught": {"demo": True}}
    return load_config({"models": models, "compute": compute, "studies": {"main": study}})


@pytest.fixture(scope="module")
def requests() -> Requests:
    return Requests(config())


def test_memory_is_a_quarter_more_than_estimated_and_grows_with_attempts(requests: Requests) -> None:
    job = requests.estimates.scores("ships", *(KEYS[key] for key in ("model", "dataset", "template")))
    assert job is not None
    assert requests.memory("ships", KEYS, 1) == round(1.25 * job.host_memory / 1e6)
    assert requests.memory("ships", KEYS, 3) == 3 * requests.memory("ships", KEYS, 1)
    assert requests.memory("ships", KEYS, 1) > 13_000, "the weights of 7B parameters in 16 bits, and more"
    demo = {**KEYS, "model": "taught"}
    assert requests.memory("ships", demo, 1) < requests.memory("ships", KEYS, 1), "each job asks for what it needs"


def test_checks_are_asked_for_by_the_model_alone(requests: Requests) -> None:
    keyed = {"model": "llama-2-7b-chat"}
    job = requests.estimates.checks(keyed["model"])
    assert job is not None
    assert requests.memory("checks", keyed, 1) == round(1.25 * job.host_memory / 1e6) > 13_000
    assert requests.runtime("checks", keyed, 1) == LEAST_MINUTES
    assert requests.runtime("checks", {"model": "unknown"}, 1) == 2 * UNKNOWN[1] / 60


@pytest.mark.parametrize("stage", ["checks", "ships", "sahara", "completions", "completions_part"])
def test_unknown_sizes_ask_for_a_lot(stage: str, requests: Requests) -> None:
    keyed = {**SINGLE, "model": "unknown"}
    assert requests.memory(stage, keyed, 1) == round(1.25 * UNKNOWN[0] / 1e6)
    assert requests.runtime(stage, keyed, 1) == 2 * UNKNOWN[1] / 60


def test_time_is_twice_the_estimate_at_least_twenty_minutes_and_within_the_limit(requests: Requests) -> None:
    job = requests.estimates.completions("llama-2-7b-chat", "advbench", "simple", "single", "greedy")
    assert job is not None
    assert requests.runtime("completions", SINGLE, 1) == round(2 * job.seconds / 60) > LEAST_MINUTES
    assert requests.runtime("completions", SINGLE, 2) == 2 * requests.runtime("completions", SINGLE, 1)
    assert requests.runtime("completions", SINGLE, 2, longest=90) == 90
    assert requests.runtime("completions", NONE, 1) == LEAST_MINUTES
    assert requests.runtime("completions", NONE, 3, longest=1440) == 3 * LEAST_MINUTES


def test_shards_share_the_time(requests: Requests) -> None:
    several = Requests(config(shards=4))
    assert several.shards(SINGLE) == 4
    whole, part = requests.runtime("completions", SINGLE, 1), several.runtime("completions_part", SINGLE, 1)
    assert whole / 4 < part < whole / 2


def test_only_cells_that_several_jobs_share_are_put_together() -> None:
    import re

    auto = Requests(config(shards="auto", speed={"device": "cpu", "generation": 0.01}))
    pattern = auto.models_of_several_shards(Cells(auto.config), "NAME")
    assert auto.shards(SINGLE) > 1 == auto.shards(NONE)
    place = re.compile(pattern.replace("NAME", r"[^/]+"))
    assert place.match("llama-2-7b-chat/advbench/simple/scaling/single/greedy.parquet")
    assert not place.match("llama-2-7b-chat/advbench/simple/plain/none/greedy.parquet")
    assert Requests(config(shards=3)).models_of_several_shards(Cells(config()), "NAME") == "NAME"


@pytest.mark.parametrize(
    ("device", "there", "expected"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("cpu", True, False),
        ("cuda", False, True),
        ("cuda:1", False, True),
    ],
)
def test_jobs_run_on_gpus_where_there_are_any_or_the_configuration_says_so(
    device: str, there: bool, expected: bool
) -> None:
    assert on_gpu(device, there=there) is expected


def test_each_job_asks_for_the_gpus_of_its_own_model(requests: Requests) -> None:
    asked = [requests.gpus(model, on_gpu=True) for model in ("llama-2-7b-chat", "unknown")]
    assert asked == [1, 4]
    assert requests.gpus("unknown", on_gpu=False) == 0


def test_the_number_format_is_resolved_when_a_job_is_planned(requests: Requests) -> None:
    assert requests.dtype("taught", on_gpu=True) == "bfloat16"
    assert requests.dtype("taught", on_gpu=False) == "float32"
    assert requests.dtype("unknown", on_gpu=False) == "float16"
