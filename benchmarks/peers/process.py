"""One runtime in a fresh process: the parent's side of worker.py."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any, cast

from ...kernels.errors import EmbgemmaError
from . import OURS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from ..harness.machine import Limits
    from ..harness.memory import Memory
    from ..harness.operations import Profile
    from ..harness.workload import Ids
    from . import Variant, Vectors
    from .worker import Loaded

# Pools that a runtime may bring along and that take their size from the environment, before any call can set it.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

EXIT_SECONDS = 5  # how long a process may take to end after its pipe was closed


class WorkerError(EmbgemmaError):
    """A runtime failed or its process ended; the message names it."""


class Worker:
    """A process that answers requests, and ends with the `with` block."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._name = name
        self._child = subprocess.Popen(  # noqa: S603 - this Python and our own code
            [sys.executable, "-c", f"from {__package__}.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def request(self, method: str, *arguments: Any) -> Any:
        """What the method of that name of worker.Requests returns; raises WorkerError if it or its process fails."""
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
        try:
            self._child.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Process(Worker):
    """A variant, loaded in a process of its own."""

    def __init__(self, variant: Variant, threads: int | None) -> None:
        name = "" if variant.peer == OURS else f"{variant.key}: "
        thread_counts = {} if threads is None else dict.fromkeys(THREAD_VARIABLES, str(threads))
        super().__init__(name, {**thread_counts, **variant.environment})
        self.variant = variant
        try:
            self.loaded = cast("Loaded", self.request("load", variant, threads))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Process:
        return self

    def encode(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        return cast("Vectors", self.request("encode", ids))

    def time_calls(self, ids: Ids, calls: int) -> list[float]:
        """Seconds of each of `calls` calls, timed inside the process."""
        return cast("list[float]", self.request("time_calls", ids, calls))

    def profile(self, ids: Ids, calls: int) -> list[Profile]:
        """Seconds of each of `calls` calls, and of their operations; only our native backend can tell."""
        return cast("list[Profile]", self.request("profile", ids, calls))

    def idle_seconds(self, ids: Ids, seconds: float) -> float:
        """Processor time that the process takes in so many seconds after a call."""
        return cast("float", self.request("idle_seconds", ids, seconds))

    def memory(self) -> Memory:
        """What the process holds now."""
        return cast("Memory", self.request("memory"))

    def limits(self, read_bytes: int) -> Limits | None:
        """The machine's limits as the runtime measures them, None where it cannot."""
        return cast("Limits | None", self.request("limits", read_bytes))


def prepare_peer(peer: str, checkpoint: Path, folder: Path) -> list[Variant]:
    """The variants of a peer; their files are made in a process that gives its memory back."""
    with Worker(f"{peer}: ", {}) as worker:
        return cast("list[Variant]", worker.request("prepare", peer, checkpoint, folder))
