"""Models by name: downloaded once, converted, kept; and one clear sentence for everything that is in the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.cli.main import main
from embgemma.export.convert import convert
from embgemma.hub import cache
from embgemma.hub.pull import find_or_pull, pull
from embgemma.kernels.model_file import read_model_file
from tests.processes import PYTHON, run, start
from tests.runtime.hub.conftest import COMMITS, NAME

if TYPE_CHECKING:
    from tests.runtime.hub.loopback import Loopback

pytestmark = pytest.mark.usefixtures("hub")

MODULES = [
    "1_Pooling/config.json",
    *(f"{i}_Dense/{file}" for i in (2, 3) for file in ("config.json", "model.safetensors")),
]
NEEDED = [*MODULES, "config.json", "config_sentence_transformers.json", "model.safetensors", "modules.json"]
NEEDED += ["sentence_bert_config.json", "tokenizer.model", "tokenizer_config.json"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]


@pytest.fixture
def pulled(hub: Loopback) -> cache.Entry:
    """An int8 model in the cache, of the commit that is main."""
    entry = pull(NAME, "int8", calibrated=False)
    hub.asked.clear()
    return entry


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)


def test_the_first_load_downloads_what_it_needs_and_later_ones_nothing(
    hub: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = embgemma.load(NAME, scheme="float32", backend="reference")
    assert sorted(hub.fetched()) == NEEDED
    assert f"{NAME} is not in the cache: it is downloaded and converted to float32, once" in capsys.readouterr().err
    expected = convert(hub.repositories[NAME][COMMITS[0]], tmp_path / "m.safetensors", "float32")
    no_network(monkeypatch)
    for again in (embgemma.load(NAME, scheme="float32"), embgemma.SentenceTransformer(NAME), embgemma.load(NAME)):
        assert again.path == first.path
        vectors = embgemma.load(expected).encode(["the of"])
        assert np.array_equal(again.encode(["the of"]), vectors)
    assert capsys.readouterr().err == ""
    assert read_model_file(first.path).metadata["origin"] == f"{NAME}@{COMMITS[0]}"
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".json", ".safetensors"]  # no checkpoint


def test_pull_prints_the_path_and_asks_for_something_newer(hub: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pull", NAME, "--scheme", "int4", "--no-calibration"]
    paths = []
    for commit in (COMMITS[0], COMMITS[0], COMMITS[1]):
        hub.revisions["main"] = commit
        hub.asked.clear()
        assert main(command) == 0
        paths.append(Path(capsys.readouterr().out.rstrip("\n")))
        assert paths[-1].parent.name == commit
    assert sorted(hub.fetched()) == sorted({*NEEDED, *SHARDS} - {"model.safetensors"})
    assert paths[0] == paths[1]
    assert embgemma.load(NAME).path == paths[2]
    assert embgemma.load(NAME, revision=COMMITS[0]).path == paths[0]


def test_a_revision_is_found_by_branch_and_by_commit(hub: Loopback, pulled: cache.Entry) -> None:
    other = pull(NAME, "int4", "next", calibrated=False)
    assert other.commit == COMMITS[1]
    assert embgemma.load(NAME, scheme="int4", revision="next").path == other.path
    hub.revisions["next"] = COMMITS[0]  # a branch stays where it was when it was pulled
    assert embgemma.load(NAME, revision="next").path == other.path
    assert embgemma.load(NAME, revision=COMMITS[1]).path == other.path
    hub.asked.clear()
    hub.revisions["tag"] = COMMITS[0]
    assert embgemma.load(NAME, scheme="int8", revision="tag").path == pulled.path  # which is that commit
    assert hub.fetched() == []


def test_without_a_scheme_the_first_that_was_pulled_stays_the_one(pulled: cache.Entry) -> None:
    pull(NAME, "int4", calibrated=False)
    assert embgemma.load(NAME).path == pulled.path
    cache.remove(NAME, "int8")
    assert embgemma.load(NAME).scheme == "int4"


def test_another_way_of_making_it_takes_its_place(pulled: cache.Entry) -> None:
    before = pulled.path.read_bytes()
    assert pull(NAME, "int8", calibrated=False).made == pulled.made
    again = pull(NAME, "int8")
    assert again.calibrated
    assert again.path == pulled.path
    assert again.path.read_bytes() != before
    assert embgemma.load(NAME).path == pulled.path  # however it was made


def test_a_kept_checkpoint_serves_other_schemes(hub: Loopback, pulled: cache.Entry) -> None:
    before = pulled.path.stat().st_mtime_ns
    for _ in range(2):
        pull(NAME, "int8", calibrated=False, keep_checkpoint=True)
        assert pulled.path.stat().st_mtime_ns == before
    pull(NAME, "int4", calibrated=False)
    assert sorted(hub.fetched()) == NEEDED
    assert [name for name, _, _ in cache.checkpoints()] == [NAME]
    cache.remove(NAME, "checkpoint")
    assert (len(cache.entries(NAME)), cache.checkpoints()) == (2, [])


def test_an_interrupted_download_goes_on(hub: Loopback) -> None:
    hub.refused[f"/{NAME}/resolve/{COMMITS[0]}/tokenizer.model"] = (404, "EntryNotFound")
    with pytest.raises(embgemma.HubError, match=r"status 404.*try it again"):
        pull(NAME, calibrated=False)
    hub.refused.clear()
    pull(NAME, calibrated=False)
    assert sorted(hub.fetched()) == NEEDED  # each once


@pytest.mark.parametrize("damaged", [False, True])
def test_a_large_file_goes_on_where_it_stopped(hub: Loopback, tmp_path: Path, damaged: bool) -> None:
    content = (hub.repositories[NAME][COMMITS[0]] / "model.safetensors").read_bytes()
    half = bytearray(content[: len(content) // 2])
    half[0] ^= damaged
    folder = tmp_path / "home/models/owner--tiny" / COMMITS[0] / "checkpoint"
    folder.mkdir(parents=True)
    (folder / f".{hashlib.sha256(content).hexdigest()}.part").write_bytes(half)
    if damaged:
        with pytest.raises(embgemma.HubError, match=DAMAGED):
            pull(NAME, "float32")
    pull(NAME, "float32")
    assert hub.ranges == [len(half)]


def test_what_huggingface_hub_has_already_is_copied(hub: Loopback) -> None:
    import huggingface_hub

    large = ["model.safetensors", "2_Dense/model.safetensors"]
    for path in large:
        huggingface_hub.hf_hub_download(NAME, path, revision=COMMITS[0])
    hub.asked.clear()
    found = Path(huggingface_hub.try_to_load_from_cache(NAME, large[0], revision=COMMITS[0]))
    assert pull(NAME, "float32").path.is_file()
    assert not {*large} & {*hub.fetched()}
    assert found.is_file()
    found.write_bytes(b"damaged")
    cache.remove(NAME)
    assert pull(NAME, "float32").path.is_file()
    assert hub.fetched().count(large[0]) == 1
    shutil.rmtree(found.parents[2])


@pytest.mark.parametrize("path", ["../evil.json", "/evil.json", "1_Pooling/../../evil.json"])
def test_no_file_comes_to_lie_outside_of_the_folder(hub: Loopback, tmp_path: Path, path: str) -> None:
    folder = tmp_path / "repository"
    shutil.copytree(hub.repositories[NAME][COMMITS[0]], folder)
    modules = json.loads((folder / "modules.json").read_text())
    for place in ("..", "/", "1_Pooling/../.."):
        modules.insert(0, {**modules[0], "path": place})
    (folder / "modules.json").write_text(json.dumps(modules))
    hub.add(NAME, folder, "c" * 40, "main")
    hub.also_listed.append(path)
    with pytest.raises(embgemma.CheckpointError):
        embgemma.load(NAME)
    assert not any("evil" in asked for asked in hub.asked)


def test_an_interrupted_conversion_downloads_nothing_again(hub: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embgemma.export.convert.convert", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull(NAME, calibrated=False)
    pull(NAME, calibrated=False)
    assert sorted(hub.fetched()) == NEEDED


DAMAGED = r"model\.safetensors came damaged over the network; run it again"
GATED = rf"{NAME} is gated.*accept its terms at http.*/{NAME}, then run `hf auth login`, or set HF_TOKEN.*their folder"


@pytest.mark.parametrize(
    ("path", "answer", "message"),
    [
        (f"/{NAME}/resolve", (401, "GatedRepo"), GATED),
        (f"/{NAME}/resolve", (403, "GatedRepo"), GATED),
        (f"/{NAME}/resolve", (403, ""), GATED),
        (f"/api/models/{NAME}", (403, "GatedRepo"), GATED),
        (f"/api/models/{NAME}/tree", (401, "GatedRepo"), GATED),
        (f"/api/models/{NAME}", (401, "RepoNotFound"), rf"there is no {NAME} at .*, or it is private.*HF_TOKEN"),
        (f"/api/models/{NAME}", (404, "RepoNotFound"), rf"there is no {NAME} at .*check the name"),
        (f"/api/models/{NAME}", (404, "RevisionNotFound"), rf"{NAME} has no revision .*/commits/main shows"),
        (f"/api/models/{NAME}", (500, ""), r"status 500\); try it again later"),
    ],
)
def test_what_the_hub_refuses(hub: Loopback, path: str, answer: tuple[int, str], message: str) -> None:
    hub.refused[path] = answer
    with pytest.raises(embgemma.HubError, match=message) as raised:
        embgemma.load(NAME, scheme="float32")
    assert len(str(raised.value)) < 400
    if answer[1] == "GatedRepo":
        assert embgemma.SentenceTransformer(NAME, token="hf_good", scheme="float32").path.is_file()
        assert embgemma.load(NAME).path.is_file()


def test_no_revision(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME, "--revision", "v9"]) == 1
    assert "has no revision 'v9'" in capsys.readouterr().err


def test_no_network(pulled: cache.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(
        embgemma.HubError, match=r"cannot be reached \(.*\); connect and run it again, or give the path"
    ):
        embgemma.load(NAME, scheme="int4")
    assert pull(NAME, "int8", calibrated=False).path == pulled.path  # nothing newer can be asked for
    with pytest.raises(embgemma.HubError, match="local_files_only forbids"):
        embgemma.load(NAME, scheme="int4", local_files_only=True)
    assert embgemma.load(NAME, local_files_only=True).path == pulled.path


CHILD = """import sys, embgemma
if sys.argv[1]: sys.modules[sys.argv[1]] = None
from embgemma.cli.main import main
code = main(sys.argv[2:])
print([name for name in ("huggingface_hub", "embgemma.hub", "embgemma.export") if sys.modules.get(name)])
sys.exit(code)
"""


def child(*arguments: str, without: str = "", **environment: str) -> Any:
    return run(
        PYTHON, "-c", CHILD, without, *arguments, check=False, capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.usefixtures("pulled")
def test_offline_by_huggingfaces_own_switch() -> None:
    result = child("info", NAME, "--scheme", "int4", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids to download it; unset that once" in result.stderr
    assert child("info", NAME, HF_HUB_OFFLINE="1").returncode == 0


def test_without_huggingface_hub(pulled: cache.Entry) -> None:
    result = child("pull", NAME, "--scheme", "int4", without="huggingface_hub")
    assert result.returncode == 1
    assert "huggingface_hub; run `pip install" in result.stderr
    assert "[hub]" in result.stderr
    result = child("info", NAME, without="huggingface_hub")
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "['embgemma.hub']")
    result = child("info", str(pulled.path))
    assert result.stdout.splitlines()[-1] == "[]"


def test_too_little_room_is_said_before_the_download(hub: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 10_000))
    with pytest.raises(embgemma.HubError, match=rf"{NAME} takes \d+ MB of disk.*make room, or set EMBGEMMA_HOME"):
        embgemma.load(NAME)
    assert not any(path.endswith("safetensors") for path in hub.fetched())


@pytest.mark.parametrize("function", ["hf_hub_download", "file_download.http_get"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded", "x")])
def test_a_full_disk(function: str, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(f"huggingface_hub.{function}", full)
    with pytest.raises(embgemma.HubError, match="the disk is full; make room and run it again, which goes on"):
        embgemma.load(NAME)


@pytest.mark.parametrize(
    ("home", "reason"),
    [
        ("file", r"EMBGEMMA_HOME is .*file, which is no folder; set it"),
        ("file/below", r"cannot write in the cache \(.*file.*\); set EMBGEMMA_HOME"),
    ],
)
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, home: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMBGEMMA_HOME", str(tmp_path / home))
    with pytest.raises(embgemma.InputError, match=reason):
        embgemma.load(NAME)


BERT = {"model_type": "bert", "max_position_embeddings": 512}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "bert": ({"config.json": BERT, "model.safetensors": 0}, "config.json: model_type is 'bert'"),
    "gguf": ({"model.gguf": 0}, "has no config.json"),
    "onnx": ({"config.json": {}, "onnx/model.onnx": 0}, r"has no model\.safetensors"),
    "pickle": ({"config.json": {}, "pytorch_model.bin": 0}, r"has no model\.safetensors"),
    "adapter": ({"adapter_config.json": {}, "adapter_model.safetensors": 0}, "is a LoRA adapter; .*--base FOLDER"),
    "inside": ({"config.json": {}, "modules.json": [{"path": "../up"}], "model.safetensors": 0}, r"no \.\./up/config"),
    "halved": ({"sliding_window": 257}, "--sliding-window 512"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_checkpoint_is_refused_before_the_weights_come(hub: Loopback, tmp_path: Path, kind: str) -> None:
    content, message = OTHERS[kind]
    folder = tmp_path / kind
    if kind == "halved":
        shutil.copytree(hub.repositories[NAME][COMMITS[0]], folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **content}))
        content = {}
    for path, value in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(value))
    hub.add(NAME, folder, "c" * 40, "main")
    with pytest.raises(embgemma.CheckpointError, match=rf"^{NAME}.*{message}"):
        embgemma.load(NAME)
    assert all(path.endswith(".json") for path in hub.fetched())
    assert not (tmp_path / "home/models/owner--tiny").exists()
    if kind == "halved":
        assert pull(NAME, calibrated=False, sliding_window=8).sliding_window == 8
        assert embgemma.load(NAME).config.window == 4


@pytest.mark.parametrize("kept", [True, False])
def test_a_wrong_argument_removes_no_checkpoint_that_was_there(hub: Loopback, kept: bool) -> None:
    if kept:
        pull(NAME, "float32", keep_checkpoint=True)
    else:
        hub.refused[f"/{NAME}/resolve/{COMMITS[0]}/tokenizer.model"] = (404, "EntryNotFound")
        with pytest.raises(embgemma.HubError):
            pull(NAME)
        hub.refused.clear()
    hub.asked.clear()
    for scheme in ("float32", "int4"):
        with pytest.raises(embgemma.CheckpointError, match=rf"^{NAME}.*sliding_window"):
            pull(NAME, scheme, sliding_window=7)
    pull(NAME, "int8", calibrated=False)
    assert hub.fetched() == ([] if kept else ["tokenizer.model"])


def test_a_download_that_came_damaged(hub: Loopback) -> None:
    hub.damaged.add("model.safetensors")
    with pytest.raises(embgemma.HubError, match=DAMAGED):
        embgemma.load(NAME)
    hub.damaged.clear()
    assert embgemma.load(NAME, scheme="float32").path.is_file()


@pytest.mark.parametrize("place", [100, -5])  # in the header and in the weights
def test_a_damaged_file_in_the_cache(pulled: cache.Entry, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(pulled.path.read_bytes())
    content[place] ^= 1
    pulled.path.write_bytes(content)
    assert main(["info", NAME, "--check"]) == 1
    remedy = f"or run `embgemma cache remove {NAME} --scheme int8`, and it is made anew when it is asked for"
    assert remedy in capsys.readouterr().err
    if place > 0:
        with pytest.raises(embgemma.ModelFileError, match=f"cache remove {NAME} --scheme int8"):
            embgemma.load(NAME)
    assert pull(NAME, calibrated=False).path == pulled.path
    assert main(["info", NAME, "--check"]) == 0


def test_threads_make_it_once(hub: Loopback) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(find_or_pull(NAME, "float32").path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({*found}) == 1
    assert sorted(hub.fetched()) == NEEDED


def test_processes_make_it_once(hub: Loopback) -> None:
    with ExitStack() as stack:
        children = [
            stack.enter_context(start(PYTHON, "-m", "embgemma", "info", NAME, "--scheme", "float32")) for _ in range(3)
        ]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(hub.fetched()) == NEEDED


def test_nothing_is_removed_while_it_is_made(pulled: cache.Entry) -> None:
    with cache.locked(NAME), pytest.raises(embgemma.InputError, match="is being pulled now; wait"):
        cache.remove(NAME)
    assert pulled.path.is_file()


@pytest.mark.parametrize(
    "arguments",
    [
        {"scheme": "int3"}, {"scheme": 4}, {"revision": ""}, {"revision": "a b"}, {"revision": 3},
        {"revision": "x" * 5000}, {"local_files_only": np.ones(2)},
    ],
)  # fmt: skip
def test_arguments_that_are_wrong(hub: Loopback, arguments: dict[str, Any]) -> None:
    with pytest.raises(embgemma.InputError, match=next(iter(arguments))):
        embgemma.load(NAME, **arguments)
    assert hub.asked == []


@pytest.mark.parametrize("token", ["hf_secret\nX: y", "hf secret", 7, b"hf_secret"])
def test_a_token_that_is_none_is_not_shown(hub: Loopback, token: Any) -> None:
    with pytest.raises(embgemma.InputError, match="the token is none of the") as raised:
        embgemma.SentenceTransformer(NAME, token=token)
    assert "secret" not in str(raised.value)
    assert hub.asked == []


@pytest.mark.parametrize("name", ["tiny", "a/b/c", "owner/ti ny", "owner/..", "owner/m.onnx", "o/" + "x" * 99])
def test_pull_takes_names_alone(hub: Loopback, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "--", name]) == 2
    assert "no name on the Hugging Face hub; expected OWNER/NAME" in capsys.readouterr().err
    assert hub.asked == []
