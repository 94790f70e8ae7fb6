"""Servers in processes of their own, and requests to them."""

from __future__ import annotations

import http.client
import json
import subprocess
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="the extra `serve` is not installed")

import embgemma
from tests.processes import PYTHON, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 300.0  # seconds of a server
NAME = "small"  # of the model of `model_path`


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Of an error in OpenAI's shape."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return str(error["message"])


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    url: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; bytes are sent as they are, all else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection(*self.address, timeout=60)) as connection:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def embed(self, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/embeddings", fields)

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")))


@contextmanager
def serving(*arguments: object, code: str = "") -> Iterator[Running]:
    """A server on a port that is free; code runs before it."""
    code += "; import sys; from embgemma.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = (PYTHON, "-c", code.removeprefix("; "), "serve", *arguments, "--port", 0, "--threads", 1)
    with start(*command, limit=LIMIT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        while line := process.stderr.readline():
            if b": serving " in line:
                break
        try:
            yield Running(process, line.decode().split(" at ")[1].split("/v1")[0])
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., Running]]:
    """Starts servers, which run until the end; those with the same arguments are one."""
    running: dict[tuple[object, ...], Running] = {}
    with ExitStack() as stack:

        def begin(*arguments: object) -> Running:
            if arguments not in running:
                running[arguments] = stack.enter_context(serving(*arguments))
            return running[arguments]

        yield begin


@pytest.fixture
def server(start_server: Callable[..., Running], model_path: Path) -> Running:
    return start_server(model_path)


@pytest.fixture(scope="session")
def model(model_path: Path) -> Iterator[embgemma.EmbeddingModel]:
    with embgemma.load(model_path, threads=1) as opened:
        yield opened
