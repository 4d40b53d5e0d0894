"""Jobs: errors end the process and are in the log; the record of a result says how it was made, and nothing else."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch

import safetyheads
from safetyheads.artifacts import files
from safetyheads.config.load import load_config
from safetyheads.errors import SafetyHeadsError
from safetyheads.jobs.run import LIBRARIES, common, logged, model_folder, open_model, open_tokenizer, provenance
from safetyheads.models.describe import describe
from safetyheads.models.load import load

PACKAGES = Path(safetyheads.__file__).parents[1]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    for handler in set(logging.root.handlers) - set(handlers):
        handler.close()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.captureWarnings(False)


def run(code: str, log: Path) -> subprocess.CompletedProcess[str]:
    """Run the body of a job in a process of its own."""
    modules = ("errors import SafetyHeadsError", "jobs.run import logged")
    imports = "\n".join(["import logging, warnings", *(f"from safetyheads.{module}" for module in modules)])
    return subprocess.run(
        [sys.executable, "-c", f"{imports}\nwith logged({str(log)!r}):\n    {code}\nprint('after')"],
        env={"PYTHONPATH": str(PACKAGES), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_error_for_people_is_one_message_and_the_status_is_1(tmp_path: Path) -> None:
    done = run("raise SafetyHeadsError('The naïve file is missing. Add it.')", tmp_path / "log")
    assert done.returncode == 1
    assert "after" not in done.stdout
    assert "Traceback" not in done.stderr
    assert (tmp_path / "log").read_text(encoding="utf-8") == "ERROR: The naïve file is missing. Add it.\n"


def test_any_other_error_has_its_traceback_in_the_log_and_the_status_is_1(tmp_path: Path) -> None:
    done = run("1 / 0", tmp_path / "log")
    assert done.returncode == 1
    text = (tmp_path / "log").read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError" in text
    assert "please report" in text


def test_messages_and_warnings_are_in_the_log(tmp_path: Path) -> None:
    done = run("logging.getLogger('x').info('step %d', 1); warnings.warn('loose')", tmp_path / "log")
    assert (done.returncode, done.stdout) == (0, "after\n")
    text = (tmp_path / "log").read_text()
    assert "INFO: step 1\n" in text
    assert "UserWarning: loose" in text


def test_a_log_begins_anew(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with logged(str(tmp_path / "log")):
            logging.getLogger("x").info(text)
    assert (tmp_path / "log").read_text() == "INFO: second\n"


def test_jobs_do_not_import_torch_before_they_open_a_model() -> None:
    code = "import sys, safetyheads.jobs.run; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(PACKAGES)}, check=False).returncode == 0


@pytest.fixture
def description(golden: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    files.write_json(path, describe(golden / "tiny_a", model="tiny", source="path"))
    return path


def test_the_record_says_how_a_result_was_made(description: Path, golden: Path) -> None:
    model = load(golden / "tiny_a", device="cpu")
    params = {"code": "abc", "ablation": {"kind": "scaling"}, "steps": 3}
    record = provenance(params, description, model)
    assert params["code"] == "abc", "the rule's own params are left alone"
    assert record["code"] == "abc"
    assert record["config"] == {"ablation": {"kind": "scaling"}, "steps": 3}
    assert (record["dtype"], record["device"], record["attention"]) == ("float32", "cpu", "sdpa")
    assert set(record["versions"]) == set(LIBRARIES)
    assert record["versions"]["torch"] == version("torch")
    identity = json.loads(description.read_text())
    assert record["model"]["files"] == identity["files"]
    assert record["model"]["tokenizer_sha256"] == identity["tokenizer_sha256"]
    assert "path" not in json.dumps(record["model"]).replace(str(golden), "path"), "no path of this machine"
    assert json.loads(json.dumps(record)) == record
    assert "model" not in provenance(params)
    assert "dtype" not in provenance(params, description)


def test_the_record_has_the_hash_of_the_prompts_template(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    rows = pd.DataFrame({"query_id": ["q"], "text": ["t"], "token_ids": [[1]]})
    keys = dict.fromkeys(("model", "dataset", "template"), "x")
    files.write("prompts", path, rows, keys, {"template_hash": "abc"})
    assert provenance({"code": "c"}, prompts=path)["template_hash"] == "abc"
    assert "template_hash" not in provenance({"code": "c"})


def test_a_record_of_several_jobs_says_where_they_differ() -> None:
    a100, h100 = ({"code": "1f", "device": device, "config": {"seed": 0}} for device in ("A100", "H100"))
    assert common([a100, a100]) == a100
    assert common([a100, h100, a100]) == {"code": "1f", "device": ["A100", "H100"], "config": {"seed": 0}}


def test_16_bits_are_recorded(description: Path, golden: Path) -> None:
    model = load(golden / "tiny_a", dtype="bfloat16", device="cpu")
    assert provenance({"code": "abc"}, description, model)["dtype"] == "bfloat16"


def config_of(golden: Path, results: Path) -> dict[str, object]:
    study = {
        "models": ["tiny"],
        "datasets": ["neutral"],
        "templates": ["direct"],
        "ablations": ["scaling"],
        "plans": ["none"],
        "decodings": ["greedy"],
        "judges": ["paper"],
    }
    return {
        "results": str(results),
        "models": {
            "tiny": {"path": str(golden / "tiny_a"), "dtype": "float32", "attention": "eager"},
            "taught": {"demo": True},
        },
        "datasets": {"neutral": {"path": str(golden / "queries.csv"), "query": "input"}},
        "compute": {"device": "cpu"},
        "studies": {"main": study},
    }


def test_a_model_and_its_tokenizer_are_opened_as_the_configuration_says(
    golden: Path, tmp_path: Path, description: Path
) -> None:
    settings = load_config(config_of(golden, tmp_path))
    assert model_folder(settings, "tiny") == golden / "tiny_a"
    assert model_folder(settings, "taught") == tmp_path / "models" / "taught"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    model = open_model(settings, "tiny", description)
    assert torch.get_num_threads() == settings.compute.threads == 1
    torch.set_num_threads(before)
    assert (model.dtype, model.device.type) == (torch.float32, "cpu")
    assert provenance({"code": "abc"}, description, model)["attention"] == "eager"
    tokenizer = open_tokenizer(settings, "tiny", description)
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id


def test_a_missing_model_is_named(golden: Path, tmp_path: Path) -> None:
    settings = load_config(config_of(golden, tmp_path))
    gone = settings.model("tiny").model_copy(update={"path": str(tmp_path / "nowhere")})
    with pytest.raises(SafetyHeadsError, match="nowhere does not exist"):
        model_folder(settings.model_copy(update={"models": {"tiny": gone}}), "tiny")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_changed_after_the_model_was_described_is_not_used(golden: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(golden / "tiny_a", tmp_path / "model"))
    settings = load_config(config_of(golden, tmp_path) | {"models": {"tiny": {"path": str(folder)}}})
    description = tmp_path / "tiny.json"
    files.write_json(description, describe(folder, model="tiny", source="path"))
    opened = open_tokenizer if name == "tokenizer.json" else open_model
    (folder / name).touch()
    opened(settings, "tiny", description)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    os.utime(folder / name, (0, 0))  # as `cp -p` and rsync may leave it
    with pytest.raises(SafetyHeadsError, match=rf"{name} is not the file that was described .* It changed"):
        opened(settings, "tiny", description)
    (folder / name).unlink()
    with pytest.raises(SafetyHeadsError, match=rf"{name}, which was there when .* is missing"):
        opened(settings, "tiny", description)


def test_within_a_job_hugging_face_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with logged(str(tmp_path / "log")):
        assert huggingface_hub.is_offline_mode()
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        with pytest.raises(huggingface_hub.errors.OfflineModeIsEnabled):
            huggingface_hub.HfApi().model_info("some/model")
    assert not huggingface_hub.is_offline_mode()
    assert "HF_HUB_OFFLINE" not in os.environ
    with logged(str(tmp_path / "log"), online=True):
        assert not huggingface_hub.is_offline_mode()


@pytest.mark.parametrize("place", ["environment", "file"])
@pytest.mark.parametrize("token", ["hf_aVerySecretToken", "another-form-of-token"])
def test_the_user_s_token_never_gets_into_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        (tmp_path / "token").write_text(token)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(SystemExit), logged(str(tmp_path / "log")):
        logging.getLogger("some.library").warning("sent %s", {"authorization": f"Bearer {token}"})
        raise RuntimeError(f"refused: Bearer {token}")
    text = (tmp_path / "log").read_text()
    assert text.count("Bearer hf_***") == 2
    assert token not in text + "".join(capsys.readouterr())
