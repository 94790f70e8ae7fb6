"""A hub on loopback with tiny checkpoints; no other address can be reached."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from tests import tiny
from tests.runtime.hub.loopback import Loopback, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "owner/tiny"
COMMITS = ["a" * 40, "b" * 40]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    """The hub, as huggingface_hub finds it, which reads the environment once, when it is imported."""
    folder = tmp_path_factory.mktemp("hub")
    for shards, commit in enumerate(COMMITS, start=1):
        tiny.write_checkpoint(folder / commit, shards=shards)
        for extra in ("README.md", "pytorch_model.bin", "onnx/model.onnx", "model.fp16.safetensors"):
            (folder / commit / extra).parent.mkdir(exist_ok=True)
            (folder / commit / extra).write_bytes(b"not needed")
    with serve() as hub:
        for commit in COMMITS:
            hub.add(NAME, folder / commit, commit)
        home = folder / "home"
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        with patch.dict(os.environ, settings):  # for child processes
            for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
                os.environ.pop(variable, None)
            from huggingface_hub import constants

            here: dict[str, Any] = {
                "ENDPOINT": hub.url,
                "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
                "HF_HUB_CACHE": str(home / "hub"),
                "HF_TOKEN_PATH": str(home / "token"),
                "HF_HUB_DISABLE_XET": True,
                "HF_HUB_OFFLINE": False,
            }
            with patch.multiple(constants, **here):  # it may have been imported before
                yield hub


@pytest.fixture
def hub(served: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loopback:
    """The same, as it is at first, with an empty cache in tmp_path/home."""
    served.revisions = {"main": COMMITS[0], "next": COMMITS[1]}
    served.repositories = {NAME: served.repositories[NAME]}
    served.refused, served.also_listed = {}, []
    served.damaged, served.asked, served.ranges = set(), [], []
    monkeypatch.setenv("EMBGEMMA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    connect, port = socket.socket.connect, int(served.url.rpartition(":")[2])

    def only_there(self: socket.socket, address: Any) -> None:
        if address != ("127.0.0.1", port):
            raise ConnectionRefusedError(111, f"no network but loopback: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_there)
    return served
