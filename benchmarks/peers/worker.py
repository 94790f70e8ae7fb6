"""The process that holds one runtime: reads pickled requests from standard input, writes replies to standard output.

Every variant has its own process, so that memory and threads of one do not affect another.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...cli.signals import clean_up_when_ended
from ...kernels.errors import EmbgemmaError
from ..harness.machine import Limits
from ..harness.memory import Memory, process_memory
from ..harness.operations import Profile
from ..harness.workload import Ids
from . import Encoder, Variant, Vectors, peer_module


@dataclass(frozen=True)
class Loaded:
    """How loading went; seconds include importing the runtime."""

    seconds: float
    before: Memory
    after: Memory
    facts: dict[str, str | int]


class Requests:
    """What a process can be asked: every public method."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None

    def prepare(self, peer: str, checkpoint: Path, folder: Path) -> list[Variant]:
        """Makes the model files of a peer."""
        return peer_module(peer).prepare(checkpoint, folder)

    def load(self, variant: Variant, threads: int | None) -> Loaded:
        """Opens the variant; this must be the first request, so that `before` is the memory of Python alone."""
        before = process_memory()
        start = time.perf_counter()
        self._encoder = peer_module(variant.peer).open_variant(variant, threads)
        seconds = time.perf_counter() - start
        gc.collect()
        gc.disable()  # no collection inside a timed call
        return Loaded(seconds, before, process_memory(), getattr(self._encoder, "facts", {}))

    def encode(self, ids: Ids) -> Vectors:
        """Unit vectors (texts, hidden) of ids (texts, tokens)."""
        return self._loaded()(ids)

    def time_calls(self, ids: Ids, calls: int) -> list[float]:
        """Seconds of each of `calls` calls."""
        encode = self._loaded()
        seconds = []
        for _ in range(calls):
            start = time.perf_counter()
            encode(ids)
            seconds.append(time.perf_counter() - start)
        return seconds

    def profile(self, ids: Ids, calls: int) -> list[Profile]:
        """Seconds of each of `calls` calls, and of their operations."""
        encoder: Any = self._loaded()
        return [encoder.profile(ids) for _ in range(calls)]

    def idle_seconds(self, ids: Ids, seconds: float) -> float:
        """Processor time of this process in the `seconds` after a call."""
        self._loaded()(ids)
        start = time.process_time()
        time.sleep(seconds)
        return time.process_time() - start

    def memory(self) -> Memory:
        """The memory of the process now."""
        return process_memory()

    def limits(self, read_bytes: int) -> Limits | None:
        """The machine's limits with this encoder's threads, or None if it cannot measure them."""
        measure = getattr(self._loaded(), "limits", None)
        return None if measure is None else measure(read_bytes)

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            raise RuntimeError("nothing is loaded; the first request must be `load`")
        return self._encoder


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers requests (method, arguments) with (value, error) until the parent closes the pipe."""
    handler = Requests()
    while True:
        try:
            method, arguments = pickle.load(requests)  # noqa: S301 - from our own parent
        except EOFError:
            return
        reply: tuple[Any, str | None]
        try:
            reply = (getattr(handler, method)(*arguments), None)
        except EmbgemmaError as error:
            reply = (None, str(error))
        except Exception as error:  # whatever a runtime raises, the parent reports it and goes on with the others
            reply = (None, f"{type(error).__name__}: {error}")
        pickle.dump(reply, replies)
        replies.flush()


def main() -> None:
    """The whole life of the process."""
    # What a runtime prints goes to standard error, so that it does not corrupt the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with clean_up_when_ended():
        serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
