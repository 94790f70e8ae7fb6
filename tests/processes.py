"""Child processes of tests: they begin with the default signal handlers, and nobody waits for one without a limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PYTHON = sys.executable
LIMIT = 1800.0  # seconds: QEMU runs the real model in less, also on a busy machine


def run(
    *arguments: object, limit: float = LIMIT, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a command; after `limit` seconds the child is killed and TimeoutExpired raised."""
    with _default_handlers():
        return subprocess.run([*map(str, arguments)], timeout=limit, check=check, **options)


@contextmanager
def start(*arguments: object, limit: float = LIMIT, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child that runs beside the block; it is killed after `limit` seconds, so reads of its pipes end."""
    with _default_handlers():
        process = subprocess.Popen([*map(str, arguments)], **options)
    killer = threading.Timer(limit, process.kill)
    killer.start()
    try:
        with process:
            yield process
    finally:
        killer.cancel()


def true_in_fork(work: Callable[[], bool], limit: float = LIMIT) -> bool:
    """Whether `work` returns True in a forked child within `limit` seconds; skips where nothing can be forked."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    child = os.fork()
    if child == 0:
        true = False
        try:
            true = work()
        finally:
            os._exit(0 if true else 1)
    deadline = time.monotonic() + limit
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1]) == 0


@contextmanager
def _default_handlers() -> Iterator[None]:
    """Children inherit signals that are ignored, as a shell's background jobs ignore SIGINT, but no handlers."""
    ending = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    ignored = [number for number in ending if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
