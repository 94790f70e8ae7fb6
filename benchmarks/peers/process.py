"""One runtime in a fresh process: the parent's side of worker.py."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from ...kernels.errors import EmbgemmaError
from . import OURS, Variant
from .worker import Requests

# Thread pools that read their size from the environment before any call can set it.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

EXIT_SECONDS = 5  # how long a process may take to end after its pipe was closed


class WorkerError(EmbgemmaError):
    """A runtime failed or its process ended; the message names it."""


METHODS = [name for name in vars(Requests) if not name.startswith("_")]

AnyWorker = TypeVar("AnyWorker", bound="Worker")


class Worker:
    """A process that answers requests, and ends with the `with` block.

    Attributes:
        ask: has the methods of worker.Requests; they run in the process, and raise WorkerError if it fails.
    """

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._name = name
        self.ask = cast(Requests, SimpleNamespace(**{method: partial(self.request, method) for method in METHODS}))
        self._child = subprocess.Popen(  # noqa: S603 - this Python and our own code
            [sys.executable, "-c", f"from {__package__}.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def request(self, method: str, *arguments: Any) -> Any:
        """What the method of worker.Requests returns."""
        requests, replies = self._child.stdin, self._child.stdout
        if requests is None or replies is None:
            raise WorkerError(f"{self._name}the process has no pipes")
        try:
            pickle.dump((method, arguments), requests)
            requests.flush()
            value, error = pickle.load(replies)  # noqa: S301 - from our own child
        except (EOFError, BrokenPipeError) as cause:
            status = self._child.wait()
            ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise WorkerError(
                f"{self._name}the process {ended} during `{method}`; what it printed is above (no message and signal 9 "
                "usually mean that memory ran out: use fewer --lengths or a smaller scheme)"
            ) from cause
        if error is not None:
            raise WorkerError(f"{self._name}{error}")
        return value

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a dead child never read what was still buffered
                    pipe.close()
        for end in (self._child.terminate, self._child.kill):  # the first lets it remove unfinished files
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(EXIT_SECONDS)
                return
            end()
        self._child.wait()

    def __enter__(self: AnyWorker) -> AnyWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Process(Worker):
    """A variant, loaded in a process of its own."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        name = "" if variant.peer == OURS else f"{variant.key}: "
        thread_counts = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
        super().__init__(name, {**thread_counts, **variant.environment})
        self.variant = variant
        try:
            self.loaded = self.ask.load(variant, threads)
        except BaseException:
            self.close()
            raise


def prepare_peer(peer: str, checkpoint: Path, folder: Path) -> list[Variant]:
    """The variants of a peer; their files are made in a process that gives its memory back."""
    with Worker(f"{peer}: ", {}) as worker:
        return worker.ask.prepare(peer, checkpoint, folder)
