"""Benchmarks: they run from a bare checkout without Snakemake, and see what differs."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
Module = Callable[[str], ModuleType]

SCORING = ("reference", "batched", "partial", "sahara")
GENERATION = ("reference", "per head set", "packed")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    """Import a module of benchmarks/, whose folder the scripts have first on their path."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


ABSENT = ("snakemake", "pydantic", "tenacity", "pooch")
"""Packages that no benchmark needs."""


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, first on Python's path, takes these packages away."""
    folder = tmp_path_factory.mktemp("absent")
    for package in ABSENT:
        (folder / f"{package}.py").write_text(f"raise ImportError('a benchmark has imported {package}')\n")
    return folder


@pytest.fixture(scope="module")
def run(absent: Path) -> Callable[..., str]:
    """Run a script as a process for which Snakemake is not there; return what it prints."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(absent), str(ROOT / "workflow")])}

    def script(name: str, *arguments: str) -> str:
        command = [sys.executable, str(ROOT / "benchmarks" / name), "--size", "tiny", "--threads", "1", *arguments]
        done = subprocess.run(command, env=environment, cwd=absent, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return script


@pytest.fixture(scope="module")
def scored(run: Callable[..., str]) -> Any:
    return json.loads(run("scoring.py", "--rounds", "2").splitlines()[-1])


@pytest.fixture(scope="module")
def generated(run: Callable[..., str]) -> Any:
    return json.loads(run("generation.py", "--rounds", "2").splitlines()[-1])


def check_figures(found: Any, variants: tuple[str, ...]) -> None:
    assert [row["variant"] for row in found["variants"]] == list(variants)
    assert set(variants[1:]) <= set(found["ratios"])
    assert found["peak"]["operations_per_second"]["float32"] > 0
    assert found["peak"]["bytes_per_second"] > 0
    reference = found["variants"][0]["seconds"]
    for row in found["variants"]:
        assert len(row["rounds"]) == 2
        assert row["operations"] > 0 and row["bytes"] > 0 and row["seconds"] > 0
        assert 0 < row["fraction_of_product_peak"] < 1
        if row["variant"] != "sahara":
            assert row["ratio"] == pytest.approx(reference / row["seconds"])


def test_scoring_measures_all_variants_and_they_agree(scored: Any) -> None:
    check_figures(scored, SCORING)
    for name in ("batched", "partial"):
        assert scored["agreement"][name]["compared"] > 0
        assert scored["agreement"][name]["median_score"] > 1e-3
        assert scored["agreement"][name]["within_1e-5_plus_1e-4_of_value"]


def test_generation_measures_all_variants_and_they_agree(generated: Any) -> None:
    check_figures(generated, GENERATION)
    for name in ("reference", "per head set"):
        assert generated["agreement"][name]["rows_compared"] > 1
        assert generated["agreement"][name]["differences_above_margin"] == 0


def test_dtypes_compares_with_float32(run: Callable[..., str]) -> None:
    table = run("dtypes.py", "--dtypes", "bfloat16", "--n-prompts", "4").splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [row[2] for row in rows[2:]] == ["Ships, each prompt", "Ships, mean", "Sahara, step 1"]
    for *_, correlation, overlap, difference, _ in rows[2:]:
        assert float(correlation) > 0.8
        assert float(overlap.rstrip("%")) > 50
        assert float(difference) > 0


FOLDER = str(ROOT / "tests" / "data" / "tiny_a")
COUNT = "allowed: a whole number of at least 1"
WRONG = [
    # script, arguments, the message that they end with
    ("scoring", "--size tiny --device cuda:9", "invalid choice: 'cuda:9'"),
    ("scoring", "--size tiny --compare-cpu --device cpu", "the device here is the CPU"),
    ("generation", "--size tiny --threads 0", f"--threads: found '0'; {COUNT}"),
    ("generation", "--size tiny --rounds 0", f"--rounds: found '0'; {COUNT}"),
    ("generation", "--size tiny --token-budget 0", f"--token-budget: found '0'; {COUNT}"),
    ("scoring", "--size tiny --token-budget 1.5", f"--token-budget: found '1.5'; {COUNT}"),
    ("scoring", "--size tiny --rounds -1", f"--rounds: found '-1'; {COUNT}"),
    ("scoring", "--size tiny --limit 0", "--limit: found '0'; allowed: a number of seconds above 0"),
    ("scoring", "--size tiny --limit nan", "--limit: found 'nan'"),
    ("scoring", "--size tiny --limit soon", "--limit: found 'soon'"),
    ("dtypes", "", "there is no model"),
    ("dtypes", "--size tiny --n-prompts 0", f"--n-prompts: found '0'; {COUNT}"),
    ("dtypes", "--size tiny --layers 0", f"--layers: found '0'; {COUNT}"),
    ("dtypes", f"--model {FOLDER} --layers 2", "--layers is for the random weights of --size"),
    ("dtypes", "--model /nowhere", "--model: found '/nowhere'; allowed: a folder with config.json"),
    (
        "dtypes",
        f"--model {FOLDER} --prompts /nowhere",
        "--prompts: found '/nowhere'; allowed: a file of results/prompts",
    ),
    ("dtypes", f"--model {FOLDER} --prompts {FOLDER}-ships.parquet", "parquet with the columns query_id and token_ids"),
    ("dtypes", "--size tiny --device cpu --dtypes tf32", "tf32 is a mode of NVIDIA GPUs"),
    ("generation", "--size tiny --head-sets 0", f"--head-sets: found '0'; {COUNT}"),
    ("correctness", "--size tiny --layers 0", f"--layers: found '0'; {COUNT}"),
    ("gpu", "--steps everything", "invalid choice: 'everything'"),
    ("gpu", "--seconds 0", "--seconds: found 0; allowed: a number of seconds above 0"),
    ("chart", "--size tiny", "unrecognized arguments"),
]


@pytest.fixture
def refused(
    module: Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str, str], str]:
    """The last line with which a script refuses its arguments; torch keeps its threads."""

    def error(script: str, arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments.split()])
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        with pytest.raises(SystemExit) as stopped:
            module(script).main()
        assert stopped.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return error


@pytest.mark.parametrize(("script", "arguments", "said"), WRONG, ids=[f"{row[0]} {row[1]}" for row in WRONG])
def test_a_wrong_argument_is_refused_in_one_line(
    refused: Callable[[str, str], str], script: str, arguments: str, said: str
) -> None:
    assert said in refused(script, arguments)


@pytest.mark.parametrize("script", ["scoring", "generation", "dtypes"])
def test_a_gpu_that_is_not_there_is_refused(
    refused: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no GPU here. Use --device auto or cpu" in refused(script, "--size tiny --device cuda")


def test_a_model_without_weights_is_refused_in_one_line(refused: Callable[[str, str], str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "it has no weights" in refused("dtypes", f"--model {tmp_path} --device cpu")


@pytest.mark.parametrize("script", ["scoring", "generation", "dtypes", "correctness", "throughput", "gpu", "chart"])
def test_help_keeps_the_lines_of_its_example(
    module: Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        module(script).main()
    assert stopped.value.code == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(re.match(rf"(PYTHONPATH=workflow )?python benchmarks/{script}\.py", line) for line in lines)
    assert "None" not in " ".join(lines)


def test_the_readme_names_every_option(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    named = set(re.findall(r"`(--[a-z-]+)`", (ROOT / "benchmarks" / "README.md").read_text()))
    known: set[str] = set()

    def parse(parser: argparse.ArgumentParser) -> None:
        known.update(re.findall(r"--[a-z-]+", parser.format_usage()))
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    for script in (
        "scoring",
        "generation",
        "dtypes",
        "correctness",
        "throughput",
        "gpu",
        "attributions",
        "atlas_tables",
    ):
        with pytest.raises(SystemExit):
            module(script).main()
    assert named == known


def test_the_picture_shows_every_variant(scored: Any, generated: Any, module: Module, tmp_path: Path) -> None:
    chart = module("chart")
    chart.draw([scored, generated], tmp_path / "speed.svg")
    picture = (tmp_path / "speed.svg").read_text()
    chart.draw([scored, generated], tmp_path / "again.svg")
    assert picture == (tmp_path / "again.svg").read_text()
    assert all(f">{variant}<" in picture for variant in SCORING + GENERATION)
    assert len(chart.table([scored, generated]).splitlines()) == 2 + len(SCORING) + len(GENERATION)


def test_samples_are_different_heads_of_first_and_last_layers(module: Module) -> None:
    sizes = module("sizes")
    for size in sizes.SIZES.values():
        for count in (size.scoring.reference[1], size.scoring.batched[1], size.generation.head_sets):
            heads = sizes.spread_heads(size.shape, count)
            assert len(set(heads)) == count
            assert (heads[0].layer, heads[-1].layer) == (0, size.shape.layers - 1)


def test_no_round_begins_that_would_end_after_the_limit(module: Module) -> None:
    measure, cpu = module("measure"), torch.device("cpu")
    for limit, rounds in ((0.0, 1), (60.0, 3)):
        variant = measure.Variant("half", lambda number: number, share=0.5)
        (timing,) = measure.in_turn([variant], measure.Peaks({torch.float32: []}), cpu, (64,), 3, limit)
        assert timing.found == list(range(rounds))
        assert len(timing.seconds) == rounds


def test_scores_on_the_same_device_do_not_differ(module: Module) -> None:
    scoring, size = module("scoring"), module("sizes").SIZES["tiny"]
    found = scoring.compare(size, torch.device("cpu"), 64)
    assert found["compared"] == 3 * 12
    assert found["largest_difference"] == 0.0


def test_a_wrong_token_is_a_difference_above_the_margin(module: Module) -> None:
    generation, sizes = module("generation"), module("sizes")
    size = sizes.SIZES["tiny"]
    model = sizes.make_model(size.shape, torch.float32, torch.device("cpu"))
    task = generation.Task(model, size.shape, size.generation, 128)
    packed = task.packed(0)
    assert len(packed) == 3 * 6
    assert all(len(tokens) == 4 for tokens in packed.values())
    wrong = {pair: [*tokens[:2], (tokens[2] + 1) % 512, tokens[3]] for pair, tokens in packed.items()}
    found = task.agreement(packed, wrong)
    assert found["tokens_different"] == found["rows_different"] == 18
    assert found["differences_above_margin"] >= 17
    assert task.agreement(packed, packed)["tokens_different"] == 0


@pytest.fixture
def gpu(module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """benchmarks/gpu.py, with scripts of the test's own in place of the benchmarks."""
    found = module("gpu")
    monkeypatch.setattr(found, "HERE", tmp_path)
    found_nothing = '{"device": "a chip", "versions": {}, "holds": {}, "tokens": {}, "scores": '
    found_nothing += '{"largest_difference": 0, "median_score": 1}}'
    (tmp_path / "good.py").write_text(f"print('words')\nprint({found_nothing!r})\n")
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "bad.py").write_text("raise RuntimeError('out of luck')\n")
    (tmp_path / "silent.py").write_text("")
    return found


def test_a_step_that_fails_or_is_too_slow_leaves_the_others(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "START", 0.0)
    names = ("bad.py", "slow.py", "silent.py", "good.py")
    results = gpu.run_all([gpu.Step(name, (name,), 3 if name == "slow.py" else 20) for name in names], 30, [], tmp_path)
    said = [result["status"] for result in results]
    assert said[0] == "failed: RuntimeError: out of luck"
    assert said[1].startswith("stopped after")
    assert said[2] == "failed: exit status 0"
    assert said[3] == "ok"
    assert results[1]["seconds"] < 10
    assert json.loads((tmp_path / "gpu-a-chip.json").read_text()) == results
    assert "| good.py | ok |" in (tmp_path / "gpu-a-chip.md").read_text()


def test_the_gpu_script_knows_every_size(module: Module) -> None:
    assert set(module("gpu").SIZES) == set(module("sizes").SIZES)


def test_steps_without_time_are_left_out(gpu: ModuleType, tmp_path: Path) -> None:
    (result,) = gpu.run_all([gpu.Step("good", ("good.py",), 1)], 0.5, [], tmp_path)
    assert result["status"] == "left out: no time"


def test_a_check_that_does_not_hold_is_a_failure_and_is_told(gpu: ModuleType, tmp_path: Path) -> None:
    wrong = '{"device": "a chip", "versions": {}, "holds": {"no-op": false}, "tokens": {}, "scores": '
    wrong += '{"largest_difference": 0, "median_score": 1}}'
    (tmp_path / "wrong.py").write_text(f"import sys\nprint({wrong!r})\nsys.exit('does not hold: no-op')\n")
    (result,) = gpu.run_all([gpu.Step("wrong", ("wrong.py",), 1)], 30, [], tmp_path)
    assert result["status"] == "failed: does not hold: no-op"
    assert "no-op: NO" in gpu.summary([result])


def test_the_gpu_script_leaves_an_outcome_of_every_step(absent: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(absent), "OUT": str(tmp_path / "out"), "PYTHON": sys.executable}
    command = [str(ROOT / "benchmarks" / "gpu.sh"), "400", "tiny", "--threads", "1"]
    done = subprocess.run(command, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [path.stem.partition("-tiny-")[0] for path in (tmp_path / "out").glob("*.json")]
    steps = ["correctness-2-layers", "correctness-3-layers", "generation", "noise", "sahara", "scoring", "throughput"]
    assert sorted(name for name in names if not name.startswith("gpu")) == steps
    (summary,) = (tmp_path / "out").glob("gpu-*.md")
    assert summary.read_text() in done.stdout
    (together,) = (tmp_path / "out").glob("gpu-*.json")
    results = json.loads(together.read_text())
    assert [result["status"] for result in results] == ["ok"] * 7
    for found in (result["found"] for result in results[:2]):
        assert all(found["holds"].values())
        assert found["scores"]["compared"] > 0
        assert found["tokens"]["packed and generate"]["tokens_compared"] > 0
    noise = results[2]["found"]
    assert noise["dtype"] == "bfloat16"
    assert 0 < noise["scores"]["rank_correlation"] <= 1
    for row in results[5]["found"]["variants"]:
        assert row["output_tokens_per_second"] == pytest.approx(4 * 8 / row["seconds"])


BARE = """
import importlib, sys
for name in ("correctness", "scoring", "generation", "throughput", "gpu"):
    importlib.import_module(name)
rooms = ("safetyheads.config", "safetyheads.models.download", "safetyheads.models.hugging_face")
rooms += ("safetyheads.jobs", "safetyheads.attribution.sahara")  # Sahara's part alone needs SciPy
print([name for name in sys.modules if name.startswith(rooms)])
"""


def test_the_gpu_script_imports_nothing_that_a_bare_machine_may_lack(absent: Path) -> None:
    path = os.pathsep.join([str(absent), str(ROOT / "workflow"), str(ROOT / "benchmarks")])
    command = [sys.executable, "-c", BARE]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_an_ablation_that_leaks_into_other_rows_is_seen(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    correctness, sizes = module("correctness"), module("sizes")
    shape = sizes.SIZES["tiny"].shape
    model = sizes.make_model(shape, torch.float32, torch.device("cpu"))
    assert all(correctness.nothing_changes(model, shape.vocabulary).values())
    ablate = correctness.ablate

    def leaking(model: Any, ablation: Any, sets: Any) -> Any:
        return ablate(model, ablation, [sets[1]] * len(sets))

    monkeypatch.setattr(correctness, "ablate", leaking)
    assert not any(correctness.nothing_changes(model, shape.vocabulary).values())
