"""The page of a run of the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..harness.machine import Environment
from ..harness.page import Page, Table, milliseconds, whole
from .report import describe

SAMPLES = 10  # of the server's memory
MEMORY = f"of the server beside the model file, at the first and the last of {SAMPLES} looks, and the most."
TITLE = "Clients that each send one text and wait for its vector"


@dataclass(frozen=True)
class Throughput:
    """Seconds of `encode` and of the server for the same texts: wall time, and processor time."""

    texts: int
    tokens: int
    encode: tuple[float, float]
    server: tuple[float, float]


@dataclass
class Load:
    """What clients met: seconds of each request, answers by status, and megabytes of the server, one after another."""

    clients: int
    duration: float
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Served:
    """All of it."""

    environment: Environment
    model: str
    threads: int
    throughput: Throughput
    loads: list[Load]


def page(found: Served) -> Page:
    """The report."""
    once = found.throughput
    speed = [f"{once.tokens / each[0]:,.0f}" for each in (once.encode, once.server)]
    ratios = [f"{server / encode:.3f}" for encode, server in zip(once.encode, once.server, strict=True)]
    return Page(
        {
            "model": f"{found.model}, {found.threads} threads",
            "machine": describe(found.environment),
            "throughput": f"{once.texts} texts, {once.tokens} tokens: encode {speed[0]} tokens/s, server {speed[1]}; "
            f"time {ratios[0]}, processor time {ratios[1]} of that of encode",
        },
        [Table.of(TITLE, found.loads, COLUMNS)],
        [f"Clients share the machine with the server. memory: {MEMORY}"],
    )


COLUMNS: dict[str, Callable[[Load], str]] = {
    "clients": lambda load: str(load.clients),
    "seconds": lambda load: f"{load.duration:g}",
    "requests/s": lambda load: f"{len(load.seconds) / load.duration:,.1f}",
    "p50 ms": lambda load: _percentile(load, 50),
    "p99 ms": lambda load: _percentile(load, 99),
    "answers": lambda load: ", ".join(f"{status}: {whole(count)}" for status, count in sorted(load.statuses.items())),
    "memory MB": lambda load: f"{load.memory[0]:.0f}, {load.memory[-1]:.0f}, {max(load.memory):.0f}",
}


def _percentile(load: Load, rank: int) -> str:
    return milliseconds(float(np.percentile(load.seconds, rank)))
