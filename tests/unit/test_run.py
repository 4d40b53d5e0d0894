"""How a job runs: errors end the process and are in the log, and no log holds a secret."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import safetyheads
from safetyheads.jobs.run import logged

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
