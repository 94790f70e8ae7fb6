"""Puts the texts of requests that wait together into forward passes; one thread computes these.

A pass has at most PASS_TOKENS tokens, or one longer text. It begins as soon as the last one has ended, with what waits
then: no request waits for others to come.

Requests are of kinds, by how many tokens they have left; each kind has up to eight times as many as the one before.
Where several kinds wait, every other pass is for the shortest of them, so that no short request waits for more than one
pass of longer ones. The longer kinds take turns in the passes between, so that nobody is put off for ever. Within a
kind the order is that of arrival, and room that is left in a pass is for the other kinds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..kernels.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from ..batches import Tokenized
    from ..model import EmbeddingModel

PASS_TOKENS = 512  # as fast a token as any more; 0.15 s with EmbeddingGemma on two cores
SHORT_TOKENS = 128  # fewer make a request short
FIRST_RATE = 1000.0  # tokens a second, until passes were timed
RATE_SHARE = 0.2  # of the last pass in the mean rate


class Job:
    """The texts of one request.

    Attributes:
        ids, offsets: of its texts, end to end, int32 (tokens,) and int64 (texts + 1,).
        vectors: float32 (texts, dim), which passes fill from the first on.
        given: how many texts passes have taken.
        done: has `vectors` as its result, when all are there.
    """

    def __init__(self, tokenized: Tokenized, dim: int) -> None:
        self.ids, self.offsets = tokenized
        self.vectors = np.empty((len(self.offsets) - 1, dim), np.float32)
        self.given = 0
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[npt.NDArray[np.float32]] = self._loop.create_future()

    @property
    def texts(self) -> int:
        """How many there are."""
        return len(self.vectors)

    @property
    def left(self) -> int:
        """Tokens that no pass has taken."""
        return int(self.offsets[-1] - self.offsets[self.given])

    @property
    def kind(self) -> int:
        """0 for a short request, more for one with more tokens left."""
        return ((self.left // SHORT_TOKENS).bit_length() + 2) // 3  # each has 3 bits more than the one before

    def take(self, room: int, *, first: bool) -> Part | None:
        """The next texts that fit into so many tokens; if this is the first of a pass, one text at least."""
        start = self.given
        stop = int(np.searchsorted(self.offsets, self.offsets[start] + room, side="right")) - 1
        self.given = max(stop, start + 1) if first else stop
        return (self, start, self.given) if self.given > start else None

    def finish(self, error: Exception | None = None) -> None:
        """Hands over the vectors, or the error, from the thread that computes."""

        def hand_over() -> None:
            if not self.done.done():  # nobody may wait any more
                self.done.set_result(self.vectors) if error is None else self.done.set_exception(error)

        with suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(hand_over)


Part: TypeAlias = tuple[Job, int, int]  # texts from the first to before the last


class Batcher:
    """Computes vectors for all requests.

    Args:
        model: what computes. Others may use it at the same time.
        seen: is told the tokens and the seconds of every pass.
    """

    def __init__(self, model: EmbeddingModel, seen: Callable[[int, float], object] = lambda *_: None) -> None:
        self._model, self._seen = model, seen
        self._jobs: dict[Job, None] = {}  # with texts that no pass has taken, the oldest first
        self._longer_next = False  # whether the last pass was for the shortest kind, and others waited
        self._turns = 0  # passes for longer kinds so far
        self._running = 0  # tokens of the pass that runs
        self._rate = FIRST_RATE
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="embgemma passes", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Tokens without a vector."""
        with self._changed:
            return sum(job.left for job in self._jobs) + self._running

    @property
    def seconds(self) -> float:
        """How long it takes until all that waits now has its vectors."""
        return self.waiting / self._rate

    async def embed(self, tokenized: Tokenized, dim: int) -> npt.NDArray[np.float32]:
        """Unit vectors (texts, dim) of token ids end to end and their offsets, which must be valid.

        If the caller is cancelled, its texts are dropped.
        """
        job = Job(tokenized, dim)
        with self._changed:
            if self._closed:
                raise BackendError("the server has stopped")
            self._jobs[job] = None
            self._changed.notify()
        try:
            return await job.done
        finally:
            with self._changed:
                self._jobs.pop(job, None)

    def close(self) -> None:
        """Ends the thread after the pass that runs."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = 0
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    break
                parts = self._next_pass()
                self._running = sum(_tokens(part) for part in parts)
            start = time.perf_counter()
            for dim in {job.vectors.shape[1] for job, _, _ in parts}:
                self._compute([part for part in parts if part[0].vectors.shape[1] == dim])
            seconds = time.perf_counter() - start
            self._rate += RATE_SHARE * (self._running / seconds - self._rate)
            self._seen(self._running, seconds)
        for job in self._jobs:
            job.finish(BackendError("the server has stopped"))

    def _next_pass(self) -> list[Part]:
        kinds = {job: job.kind for job in self._jobs}
        shortest, *longer = sorted({*kinds.values()})
        self._longer_next = self._longer_next and bool(longer)
        self._turns += self._longer_next
        served = longer[self._turns % len(longer)] if self._longer_next else shortest
        self._longer_next = bool(longer) and not self._longer_next
        order = sorted(self._jobs, key=lambda job: (kinds[job] != served, kinds[job]))
        parts: list[Part] = []
        room = PASS_TOKENS
        for job in order:
            part = job.take(room, first=not parts)
            if part is not None:
                parts.append(part)
                room -= _tokens(part)
                if job.given == job.texts:
                    del self._jobs[job]
            if room <= 0:
                break
        return parts

    def _compute(self, parts: list[Part]) -> None:
        """Vectors of parts of one size; what one of them cannot have is no harm to the others."""
        job, start, stop = parts[0]
        rows = [job.ids[job.offsets[i] : job.offsets[i + 1]] for job, start, stop in parts for i in range(start, stop)]
        try:
            vectors = self._model.encode_ids(rows, truncate_dim=job.vectors.shape[1])
        except Exception as error:  # of whatever kind, or the thread would end
            if len(parts) > 1:
                for part in parts:
                    self._compute([part])
                return
            with self._changed:
                self._jobs.pop(job, None)
            job.finish(error)
            return
        row = 0
        for job, start, stop in parts:
            job.vectors[start:stop] = vectors[row : row + stop - start]
            row += stop - start
            if stop == job.texts:
                job.finish()


def _tokens(part: Part) -> int:
    job, start, stop = part
    return int(job.offsets[stop] - job.offsets[start])
