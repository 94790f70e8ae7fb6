"""Counts for Prometheus."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """What a server has done; waiting gives the tokens that wait."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Gauge("embgemma_waiting_tokens", "Tokens without a vector", registry=registry).set_function(waiting)
        self._texts = Counter("embgemma_texts", "Texts embedded", registry=registry)
        self._tokens = Counter("embgemma_tokens", "Tokens embedded", registry=registry)
        self._pass_seconds = Histogram("embgemma_pass_seconds", "Forward passes", buckets=SECONDS, registry=registry)
        self._pass_tokens = Histogram("embgemma_pass_tokens", "Their tokens", buckets=TOKENS, registry=registry)
        labels = ("path", "status")
        self._requests = Counter("embgemma_requests", "Answers to requests", labels, registry=registry)
        self._seconds = Histogram(
            "embgemma_request_seconds", "Time of requests", ("path",), buckets=SECONDS, registry=registry
        )

    def passed(self, tokens: int, seconds: float) -> None:
        """Counts a forward pass."""
        self._pass_tokens.observe(tokens)
        self._pass_seconds.observe(seconds)

    def embedded(self, texts: int, tokens: int) -> None:
        """Counts texts that have their vectors."""
        self._texts.inc(texts)
        self._tokens.inc(tokens)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Counts an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus' format."""
        return bytes(generate_latest(self._registry))


class Measured:
    """An app of which answers are counted; paths that are not among these count as one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        start, status = time.perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(path, status, time.perf_counter() - start)
