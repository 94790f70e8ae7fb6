"""The server beside `encode` on the same texts, and how long single requests take while many ask.

Throughput: `encode` here and requests of many texts to a server of its own take turns; the server has as many threads.
Latency: clients each send one text, get its vector and send the next. Processor time does not depend on what else the
machine does; clients share the machine with the server, so wall times are those of both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from ...kernels.errors import InputError
from ...model import EmbeddingModel, load
from ..harness.command import progress
from ..harness.machine import read_environment
from ..harness.memory import kib_fields
from ..harness.page import MEGA
from . import options as shared
from .serve_report import SAMPLES, Load, Served, Throughput, page
from .tokenizer_speed import read_texts, sample_texts

ROUNDS = 3
TEXTS = 256
TEXTS_A_REQUEST = 64
REQUESTS_AT_ONCE = 4
OK = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command `serve`."""
    parser.description = __doc__
    parser.add_argument("model", metavar="MODEL", help="a model file, or a name")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="a file of texts, one a line (default: help texts)")
    parser.add_argument(
        "--threads", type=shared.positive, metavar="N", help="of the server and of encode (default: as always)"
    )
    parser.add_argument(
        "--clients", type=shared.positive, default=16, metavar="N", help="at once (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=shared.seconds, default=10.0, help="of single requests (default: %(default)g)"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> str:
    texts = read_texts(options.texts) if options.texts else None
    return page(measure_server(options.model, options.threads, {options.clients: options.seconds}, texts)).text()


def measure_server(
    name: str, threads: int | None, seconds: Mapping[int, float], texts: Sequence[str] | None = None
) -> Served:
    """Measures the server of a model file, or of a name; seconds are those of each number of clients."""
    texts = list(islice(cycle(texts or sample_texts()["English"]), TEXTS))
    texts = [text for text in texts if text.strip()]
    with load(name, threads=threads) as model, _server(name, model.threads) as server:
        facts = f"{model.path.stem}, {model.scheme}", model.threads
        throughput = _throughput(model, server, texts)
    loads = []
    for clients, duration in seconds.items():
        progress(f"{clients} clients for {duration:g} s")
        with _server(name, threads) as server:
            loads.append(asyncio.run(_load(server, texts, clients, duration)))
    return Served(read_environment(("starlette", "uvicorn")), *facts, throughput, loads)


@dataclass(frozen=True)
class Server:
    """A server that runs in another process."""

    host: str
    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Processor time that it took so far."""
        return sum(map(int, self._read("stat").rpartition(") ")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Megabytes of its own, not of the model file."""
        return kib_fields(self._read("status"))["RssAnon"] / MEGA

    def _read(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text("utf-8")
        except OSError as error:
            raise InputError(f"this command reads /proc, which Linux has: {error}") from error


@contextmanager
def _server(model: str, threads: int | None) -> Iterator[Server]:
    command = [sys.executable, "-m", "embgemma", "serve", model, "--port", "0"]
    command += [] if threads is None else ["--threads", str(threads)]
    environment = {name: value for name, value in os.environ.items() if name != "EMBGEMMA_API_KEY"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
        assert process.stderr is not None  # noqa: S101
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if ": serving " in line:
                    url = urlsplit(line.rpartition(" at ")[2].strip())
                    yield Server(str(url.hostname), int(url.port or 0), process.pid)
                    return
            raise InputError("the server did not start: " + "".join(said))
        finally:
            process.terminate()


def _throughput(model: EmbeddingModel, server: Server, texts: list[str]) -> Throughput:
    requests = [texts[i : i + TEXTS_A_REQUEST] for i in range(0, len(texts), TEXTS_A_REQUEST)]
    tokens = sum(map(len, model.token_ids(texts)))
    times: dict[str, list[tuple[float, float]]] = {"encode": [], "server": []}
    progress(f"embedding {len(texts)} texts of {tokens} tokens, {ROUNDS} times")
    for i in range(ROUNDS + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        model.encode(texts, show_progress_bar=False)
        encoded = (time.perf_counter() - wall, time.process_time() - cpu)
        wall, cpu = time.perf_counter(), server.cpu_seconds()
        asyncio.run(_share(server, requests))
        served = (time.perf_counter() - wall, server.cpu_seconds() - cpu)
        if i:  # the first warms up
            times["encode"].append(encoded)
            times["server"].append(served)
    encode, serve = ((median(wall), median(cpu)) for wall, cpu in (zip(*each, strict=True) for each in times.values()))
    return Throughput(len(texts), tokens, encode, serve)


async def _share(server: Server, requests: Sequence[list[str]]) -> None:
    left = iter(requests)

    async def work() -> None:
        async with _client(server) as client:
            for texts in left:
                status, answer = await client.embed(texts)
                if status != OK:
                    raise InputError(f"the server answered {status}: {answer.decode()}")

    await asyncio.gather(*(work() for _ in range(REQUESTS_AT_ONCE)))


async def _load(server: Server, texts: list[str], clients: int, duration: float) -> Load:
    found = Load(clients, duration)
    end = time.perf_counter() + duration

    async def work(number: int) -> None:
        async with _client(server) as client:
            for text in islice(cycle(texts), number, None):
                start = time.perf_counter()
                status, _ = await client.embed([text])
                stop = time.perf_counter()
                found.seconds.append(stop - start)
                found.statuses[status] += 1
                if stop >= end:
                    break

    async def watch() -> None:
        for _ in range(SAMPLES):
            await asyncio.sleep(duration / SAMPLES)
            found.memory.append(server.memory())

    await asyncio.gather(watch(), *(work(i) for i in range(clients)))
    return found


class _Client:
    """As little of HTTP as it takes, so that clients leave the machine to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def embed(self, texts: list[str]) -> tuple[int, bytes]:
        """Status and body; long texts are cut, as by encode."""
        body = json.dumps({"input": texts, "encoding_format": "base64", "truncate": True}).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        (size,) = (line.split(b":")[1] for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
        return int(answer.split(b" ", 2)[1]), await self._reader.readexactly(int(size))


@asynccontextmanager
async def _client(server: Server) -> AsyncIterator[_Client]:
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 24)
    try:
        yield _Client(reader, writer)
    finally:
        writer.close()
