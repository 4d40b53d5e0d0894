"""Models from Hugging Face: fetched once, resumed, verified, or refused with advice. The hub is a stand-in."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import COMMIT, Answer, StandIn, always, serving

import safetyheads
from safetyheads.errors import SafetyHeadsError
from safetyheads.models.describe import describe

TINY = Path(__file__).parents[1] / "data" / "tiny_a"
TOKEN = "hf_aVerySecretTokenOfTheUser"
FETCH = """
import os, time
sleep, hurry = time.sleep, float(os.environ.get("HURRY", 1))
time.sleep = lambda seconds: sleep(seconds / hurry)  # huggingface_hub's own patience cannot be set
from safetyheads.models.describe import check_before_weights
from safetyheads.models.download import Patience
from safetyheads.models.hugging_face import snapshot
print(snapshot("some/model", {!r}, {}, patience=Patience(attempts=2, first_wait=0.01, timeout=2)))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


@pytest.fixture
def hub(model: Path) -> Iterator[StandIn]:
    with serving(model=model) as stand_in:
        yield stand_in


class Fetching:
    """A process that fetches the model into the folder `home`."""

    def __init__(self, hub: StandIn, home: Path, revision: str | None = None, inspected: bool = False, **more: str):
        home.mkdir(exist_ok=True)
        self.output, self.home = home.with_suffix(".out"), home
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_ETAG_TIMEOUT": "2"}
        settings |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        settings |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "2"}
        settings |= {"PYTHONPATH": str(Path(safetyheads.__file__).parents[1])}
        code = FETCH.format(revision, "check_before_weights" if inspected else "lambda *_: None")
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], env={**os.environ, **settings, **more}, stdout=file, stderr=file
            )

    def end(self) -> tuple[int, str]:
        """Its exit status and last line. The token is nowhere, and no address's signature is shown."""
        self.process.wait(120)
        for path in (self.output, *self.home.rglob("*")):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
        said = self.output.read_text()
        assert "Signature=of" not in said
        return self.process.returncode, said.strip().splitlines()[-1]


def fetch(hub: StandIn, home: Path, revision: str | None = None, **environment: str) -> Path:
    """The folder that a process of its own gets."""
    status, said = Fetching(hub, home, revision, **environment).end()
    assert status == 0, said
    return Path(said)


def problem(hub: StandIn, home: Path, revision: str | None = None, inspected: bool = False, **environment: str) -> str:
    """The message with which a process of its own ends."""
    status, said = Fetching(hub, home, revision, inspected, **environment).end()
    name, _, message = said.partition(": ")
    assert (status, name) == (1, "safetyheads.errors.SafetyHeadsError"), said
    assert inspected or "some/model" in message
    return message


def in_shards(folder: Path, megabytes: int) -> None:
    """Replace the weights of tiny_a by ones that take a while: some random padding that no model has a place for."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    padding = {"padding": torch.randn(megabytes * 2**18)}
    shards = {"model-00001-of-00002.safetensors": weights, "model-00002-of-00002.safetensors": padding}
    for name, tensors in shards.items():
        save_file(tensors, folder / name, {"format": "pt"})
    places = {key: name for name, tensors in shards.items() for key in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_what_was_fetched_once_is_there_offline_whatever_the_revision_is_called(hub, model, tmp_path, revision):
    folder = fetch(hub, tmp_path / "home", revision)
    assert folder.name == COMMIT
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in model.iterdir()
    }
    asked = len(hub.requests)
    assert fetch(hub, tmp_path / "home", revision, HF_HUB_OFFLINE="1") == folder
    assert len(hub.requests) == asked


def test_a_pinned_commit_that_is_there_is_not_asked_for_again(hub, tmp_path):
    fetch(hub, tmp_path / "home", COMMIT)
    asked = len(hub.asked("/some/model"))
    fetch(hub, tmp_path / "home", COMMIT)
    assert len(hub.asked("/some/model")) == asked


def test_a_branch_that_moved_is_fetched_and_the_old_commit_stays(hub, model, tmp_path):
    old = fetch(hub, tmp_path / "home")
    hub.commits = {"main": "f" * 40}
    (model / "generation_config.json").write_text('{"eos_token_id": 3}')
    assert fetch(hub, tmp_path / "home").name == "f" * 40
    assert old.is_dir()
    assert len([request for request in hub.requests if request.sent and request.path.endswith(".safetensors")]) == 1


def test_when_the_hub_is_down_the_cache_will_do(hub, tmp_path):
    folder = fetch(hub, tmp_path / "home")
    hub.refuse = always(503)
    assert fetch(hub, tmp_path / "home") == folder


def test_the_token_goes_to_the_hub_alone(hub, tmp_path):
    fetch(hub, tmp_path / "home", COMMIT)
    large = hub.asked(".safetensors")
    assert any(request.token for request in large)
    assert {request.token for request in large if request.sent} == {None}  # a CDN's address is signed


@pytest.mark.parametrize("signal", ["kill", "terminate"])
def test_of_a_download_that_was_killed_whole_files_are_kept_and_others_begin_anew(hub, model, tmp_path, signal):
    in_shards(model, 4)
    size = (model / "model-00002-of-00002.safetensors").stat().st_size
    hub.stop_at = size // 2
    fetching = Fetching(hub, tmp_path / "home", COMMIT)
    deadline = time.monotonic() + 100
    while hub.sent("2-of-00002.safetensors") < size // 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    getattr(fetching.process, signal)()
    fetching.process.wait(30)
    hub.stop_at = None
    folder = fetch(hub, tmp_path / "home", COMMIT)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        assert (folder / name).read_bytes() == (model / name).read_bytes()
    assert size * 1.5 <= hub.sent("2-of-00002.safetensors") <= size * 1.5 + 2**16
    assert hub.sent("1-of-00002.safetensors") == (model / "model-00001-of-00002.safetensors").stat().st_size


def test_a_part_is_deleted_once_nobody_has_written_to_it_for_a_day(hub, tmp_path):
    folder = fetch(hub, tmp_path / "home", COMMIT)
    young, old = (folder.parents[1] / "blobs" / f"{name}.incomplete" for name in ("young", "old"))
    for part in (young, old):
        part.write_text("")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    fetch(hub, tmp_path / "home", COMMIT)
    assert (young.exists(), old.exists()) == (True, False)


def test_a_connection_that_breaks_again_and_again_is_gone_on_with(hub, model, tmp_path):
    """huggingface_hub writes 10 MiB at a time. What it had of the next ones is sent again."""
    in_shards(model, 30)
    name = "model-00002-of-00002.safetensors"
    size = (model / name).stat().st_size
    hub.stop_at, hub.breaks = 12 * 2**20, 12 * 2**20
    folder = fetch(hub, tmp_path / "home", COMMIT)
    assert (folder / name).read_bytes() == (model / name).read_bytes()
    begun = [request.first for request in hub.requests if request.path.endswith(name) and request.sent]
    assert begun == [0, 10 * 2**20, 20 * 2**20]
    assert size < hub.sent(name) < size + 2 * 10 * 2**20


def test_where_the_parts_of_a_file_lie_in_xet_and_that_is_out_of_reach_the_way_around_is_told(hub, tmp_path):
    hub.xet = "http://127.0.0.1:9"
    message = problem(hub, tmp_path / "home", HF_XET_CLIENT_RETRY_MAX_ATTEMPTS="1")
    assert "HF_HUB_DISABLE_XET=1" in message
    assert hub.sent() == 0
    fetch(hub, tmp_path / "home", HF_HUB_DISABLE_XET="1")
    assert hub.sent() > 0


def test_a_file_that_comes_with_fewer_bytes_than_the_hub_has_is_not_kept(hub, tmp_path):
    hub.cut.add("model.safetensors")
    assert "fewer bytes" in problem(hub, tmp_path / "home")
    hub.cut.clear()
    fetch(hub, tmp_path / "home")


def test_named_chat_templates_come_with_the_tokenizer(hub, model, tmp_path):
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
    folder = fetch(hub, tmp_path / "home")
    assert (folder / "additional_chat_templates" / "tools.jinja").read_text() == "{{ messages }}"


def test_a_file_that_changes_on_its_way_is_not_kept(hub, tmp_path):
    hub.tampered.add("model.safetensors")
    assert "Wrong checksum for model.safetensors" in problem(hub, tmp_path / "home")
    hub.tampered.clear()
    fetch(hub, tmp_path / "home")


REFUSED = {
    "401": (Answer(401), ["HTTP 401", "hf auth login"]),
    "403": (Answer(403, {"X-Error-Code": "GatedRepo"}), ["HTTP 403", "Accept its licence"]),
    "404": (Answer(404, {"X-Error-Code": "RepoNotFound"}), ["HTTP 404", "spelling"]),
    "429": (Answer(429, {"Retry-After": "1"}), ["HTTP 429", "too many requests", "wait 1 seconds"]),
    "a bare 403": (Answer(403), ["HTTP 403", "may not read"]),
    "a bare 404": (Answer(404), ["HTTP 404", "spelling"]),
    "503": (Answer(503), ["cannot be reached", "HTTP 503", "path:"]),
}


@pytest.mark.parametrize("where", ["everywhere", "at the weights"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_hub_refuses_comes_with_advice(hub, tmp_path, case, where):
    answer, said = REFUSED[case]
    hub.refuse = lambda _, path: answer if where == "everywhere" or "safetensors" in path else None
    message = problem(hub, tmp_path / "home", HURRY="50")
    assert [text for text in said if text not in message] == []
    without_port = re.sub(r"127\.0\.0\.1:\d+", "", message)  # which may hold any number
    assert [other for other in REFUSED if other in without_port and other != case[-3:]] == []


def test_a_server_that_is_busy_is_asked_again(hub, tmp_path):
    asked = []

    def busy(method: str, path: str) -> Answer | None:
        asked.append(path)
        return Answer(429, {"Retry-After": "1"}) if asked.count(path) == 1 and "/api/models" in path else None

    hub.refuse = busy
    begun = time.monotonic()
    fetch(hub, tmp_path / "home")
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9 refuses the connection"),
        ("http://no-such-host.invalid", "the name of no-such-host.invalid is not known here"),
        ("http://someone:secret@127.0.0.1:9", "127.0.0.1:9 refuses"),
    ],
)
def test_what_is_in_the_way_of_the_hub_is_named(hub, tmp_path, endpoint, said):
    message = problem(hub, tmp_path / "home", HF_ENDPOINT=endpoint)
    assert said in message
    assert "secret" not in message


def test_a_server_that_says_nothing_is_not_waited_for(hub, tmp_path):
    hub.refuse = lambda *_: time.sleep(5)
    assert "does not answer in time" in problem(hub, tmp_path / "home")


def test_an_unknown_revision_is_named(hub, tmp_path):
    assert "no revision 'mian'" in problem(hub, tmp_path / "home", "mian")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model-00001-of-00002.bin")


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoModelForCausalLM": "mine.Mine"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": auto_map}))


def outside(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "falcon", "num_attention_heads": 2, "hidden_size": 8}')


def without_a_shard(folder: Path) -> None:
    in_shards(folder, 1)
    (folder / "model-00002-of-00002.safetensors").unlink()


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled, "pytorch_model-00001-of-00002.bin"),
        (with_code, "its own code, which is never run"),
        (outside, "FalconForCausalLM"),
        (without_a_shard, "model-00002-of-00002.safetensors"),
        (without_config, "has no config.json"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_its_weights_come(hub, model, tmp_path, spoil, said):
    spoil(model)
    assert said in problem(hub, tmp_path / "home", inspected=spoil in (with_code, outside))
    assert hub.sent(".safetensors") == hub.sent(".bin") == 0


def stray(folder: Path) -> None:
    in_shards(folder, 1)


def without_vocabulary(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def quantised(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(weights | {name: weights[name].char()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (stray, "has the tensor 'padding', for which the model"),
        (quantised, "as I8 numbers, which are quantised"),
        (without_vocabulary, "The folder has no vocabulary"),
    ],
)
def test_what_the_weights_say_of_themselves_is_looked_at_before_they_come(hub, model, tmp_path, spoil, said):
    spoil(model)
    assert said in problem(hub, tmp_path / "home", inspected=True)
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_mirror_that_serves_no_parts_of_files_is_no_hindrance(hub, tmp_path):
    hub.ranges = False
    fetch(hub, tmp_path / "home", COMMIT)


def test_other_formats_of_the_weights_stay_where_they_are(hub, model, tmp_path):
    others = ("consolidated.safetensors", "pytorch_model.bin", "model.fp16.safetensors")
    for name in (*others, "onnx/model.safetensors", "onnx/config.json", "onnx/tokenizer.model"):
        (model / name).parent.mkdir(exist_ok=True)
        shutil.copy(model / "model.safetensors", model / name)
    (model / "mine.py").write_text("")
    folder = fetch(hub, tmp_path / "home")
    assert {path.name for path in folder.iterdir()} == {path.name for path in TINY.iterdir()}


def test_a_file_of_the_cache_that_has_changed_is_not_described(hub, tmp_path):
    folder = fetch(hub, tmp_path / "home")
    described = describe(folder, model="m", source="repo", repo="some/model")
    assert described["revision"] == COMMIT
    blob = (folder / "model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(SafetyHeadsError, match=rf"model\.safetensors is not the file .*{blob.name}.* It changed"):
        describe(folder, model="m", source="repo", repo="some/model")
