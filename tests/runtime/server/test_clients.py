"""Clients that are many, slow, broken or gone."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import openai
import pytest

from embgemma.server import connections, requests
from embgemma.server.run import listen
from tests.processes import PYTHON, start
from tests.runtime.server.conftest import NAME, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import embgemma
    from tests.runtime.server.conftest import Running

CLIENTS = 200
PATIENCE = 60.0  # seconds in which a server notices what happened

LONG_TEXTS, LONG_TOKENS = 2000, 32_000
LONG = json.dumps({"input": ["the of and to be it is that for " * 2] * LONG_TEXTS}).encode()
REQUESTS = 6  # of which a client begins the last before the first is answered
CLIENT = """
import socket, sys
host, port, count, shut = sys.argv[1], *map(int, sys.argv[2:])
data = sys.stdin.buffer.read()
connections = [socket.create_connection((host, port)) for _ in range(count)]
for connection in connections:
    connection.sendall(data)
    if shut:
        connection.shutdown(socket.SHUT_WR)
for connection in connections:
    while connection.recv(1 << 16):
        pass
"""


def eventually(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def read_all(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def head(size: int) -> bytes:
    return f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


def test_many_clients_at_once(server: Running, model: embgemma.EmbeddingModel) -> None:
    texts = [f"the of and {i} " * (i % 7 + 1) for i in range(CLIENTS)]
    expected = model.encode(texts)

    def ask(i: int) -> bool:
        found = client.embeddings.create(model=NAME, input=texts[i])
        return np.array_equal(np.array(found.data[0].embedding, np.float32), expected[i])

    address = f"{server.url}/v1"
    with openai.OpenAI(base_url=address, api_key="any") as client, ThreadPoolExecutor(CLIENTS) as pool:
        assert all(pool.map(ask, range(CLIENTS)))


CHUNKED = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"\0\xff\x16\x03\x01\n", 400),
        (b"GET / HTTP/1.1\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000, 431),
        (head(-1), 400),
        (head(10**30) + b"{", 400),
        (head(100) + b'{"input": "a', 400),
        (CHUNKED + b"\r\nzz\r\n", 400),
        (CHUNKED + b"Content-Length: 3\r\n\r\n", 400),
        (CHUNKED + b"Transfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_broken_clients(server: Running, data: bytes, status: int | None) -> None:
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            top, _, body = stream.read().partition(b"\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {status} ".encode() if status else b"")
    assert ("error" in json.loads(body)) if status else not top
    assert server.embed(input="the").status == 200


def test_what_is_broken_after_its_answer_ends_the_connection(model_path: Path) -> None:
    with serving(model_path) as server, socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(CHUNKED.replace(b"embeddings", b"else") + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"zz\r\n")
        read_all(connection)
        assert server.ask("GET", "/health").status == 200
        server.process.terminate()
        assert server.process.stderr is not None
        assert server.process.stderr.read() == b""


def test_requests_one_after_another_on_one_connection(server: Running) -> None:
    body = b'{"input": "the", "dimensions": 2}'
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall((head(len(body)) + body) * 3)
        answers = b""
        while answers.count(b'"usage"') < 3:
            answers += connection.recv(1 << 16)
    assert answers.count(b"HTTP/1.1 200 OK") == 3


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("body", [b'{"input": "the", "dimensions": 2}', LONG])
def test_a_client_that_sends_no_more_gets_its_answer(server: Running, version: str, body: bytes) -> None:
    """As those of `nc -N`, which end their side of the connection when all is sent."""
    requests = head(len(body)) + body
    requests = requests.replace(b"HTTP/1.1", b"HTTP/1.0") if version == "1.0" else requests * 2
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(requests)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            answers = stream.read().split(b"HTTP/1.1 200 OK\r\n")
    assert len(answers) == requests.count(b"POST") + 1
    assert answers.pop(0) == b""
    assert all(b'"usage"' in answer for answer in answers)


def test_slow_clients_are_cut_off(model_path: Path) -> None:
    """One that never ends its head, one that never ends its body, and one that never reads."""
    assert min(connections.REQUEST_SECONDS, connections.WRITE_SECONDS, requests.BODY_SECONDS) > 1
    code = (
        "from embgemma.server import connections, requests; "
        "connections.REQUEST_SECONDS = connections.WRITE_SECONDS = requests.BODY_SECONDS = 1.0"
    )
    with serving(model_path, code=code) as server:
        with socket.create_connection(server.address, timeout=PATIENCE) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            assert connection.recv(100) == b""
        with socket.create_connection(server.address, timeout=PATIENCE) as connection:
            connection.sendall(head(1000) + b"{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(server.address)
            connection.sendall((head(len(LONG)) + LONG) * 4)  # the answers are more than the system holds for a socket
            assert eventually(lambda: server.metric("embgemma_texts_total") >= 2 * LONG_TEXTS)
            time.sleep(3)
            with pytest.raises(ConnectionResetError):
                read_all(connection)
        assert server.embed(input="the").status == 200


@pytest.mark.parametrize("shut", [0, 1])
def test_what_a_killed_client_asked_for_is_dropped(server: Running, shut: int) -> None:
    """Also where it had said before that it sends no more."""
    tokens, gone = "embgemma_tokens_total", 'embgemma_requests_total{path="/v1/embeddings",status="499"}'
    before = server.metric(tokens)
    with start(PYTHON, "-c", CLIENT, *server.address, REQUESTS, shut, stdin=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(head(len(LONG)) + LONG)
        client.stdin.close()
        assert eventually(lambda: server.metric("embgemma_waiting_tokens") > 0)
        client.kill()
    assert eventually(lambda: server.metric("embgemma_waiting_tokens") == 0)
    assert server.metric(tokens) < before + REQUESTS * LONG_TOKENS
    assert server.metric(gone) > 0
    assert server.embed(input="the").status == 200


def test_a_full_queue_says_when_to_come_back(model_path: Path) -> None:
    with serving(model_path, "--max-queue", 60_000) as server, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.ask("POST", "/v1/embeddings", LONG), range(4)))
        statuses = {answer.status for answer in answers}
        assert statuses == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_runs_is_finished(model_path: Path, number: signal.Signals) -> None:
    with serving(model_path) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.ask, "POST", "/v1/embeddings", LONG)
        assert eventually(lambda: server.metric("embgemma_waiting_tokens") > 0)
        os.kill(server.process.pid, number)
        assert running.result().status == 200
        assert server.process.wait(PATIENCE) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.address)


def test_a_second_interrupt_waits_for_nobody(model_path: Path) -> None:
    with serving(model_path) as server, ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.ask, "POST", "/v1/embeddings", LONG)
        assert eventually(lambda: server.metric("embgemma_waiting_tokens") > 0)
        for _ in range(2):
            os.kill(server.process.pid, signal.SIGINT)
            time.sleep(0.05)  # two at once are one
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            running.result()
        assert server.process.wait(PATIENCE) == 0
        assert server.process.stderr is not None
        assert server.process.stderr.read() == b""


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_addresses_of_either_kind(model_path: Path, host: str) -> None:
    with serving(model_path, "--host", host) as server:
        assert server.address[1] > 0
        assert ("[::1]" in server.url) == (host == "::1")
        assert server.ask("GET", "/health").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_answer_waits_for_a_confirmation(host: str) -> None:
    with listen(host, 0) as listener, socket.create_connection(listener.getsockname()), listener.accept()[0] as taken:
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
