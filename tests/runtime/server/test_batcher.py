"""Which texts a pass takes, and what becomes of those that nobody waits for or that have no vector."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.kernels.errors import VectorError
from embgemma.server.batcher import PASS_TOKENS, Batcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

DIM = 4
HELD, BAD = 1, 99  # ids: of the text whose pass waits for the test, and of one that has no vector


class Encoder:
    """Stands for a model: the vector of a text holds its first id. It keeps what it was asked for."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.go = threading.Event()

    def encode_ids(self, rows: Sequence[npt.NDArray[np.int32]], truncate_dim: int) -> npt.NDArray[np.float32]:
        firsts = [int(row[0]) for row in rows]
        if HELD in firsts:
            self.go.wait(60)
        self.passes.append(firsts)
        if BAD in firsts:
            raise VectorError(firsts.index(BAD))
        return np.repeat(np.array(firsts, np.float32)[:, None], truncate_dim, axis=1)


def job(first: int, *lengths: int) -> Any:
    """Texts of these lengths that begin with ids from `first` on."""
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    ids = np.zeros(offsets[-1], np.int32)
    ids[offsets[:-1]] = first + np.arange(len(lengths))
    return ids, offsets


def run(encoder: Encoder, *waiting: Any, dims: Sequence[int] = ()) -> list[Any]:
    """What the batcher gives for requests that came while the text HELD was computed, or the errors."""

    async def together() -> list[Any]:
        batcher = Batcher(encoder)
        sizes = [*dims, *[DIM] * (len(waiting) - len(dims))]
        held = asyncio.create_task(batcher.embed(job(HELD, 2), DIM))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.embed(each, dim)) for each, dim in zip(waiting, sizes, strict=True)]
        await asyncio.sleep(0)
        encoder.go.set()
        try:
            return (await asyncio.gather(held, *others, return_exceptions=True))[1:]
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(together())


def test_what_waits_is_one_pass() -> None:
    encoder = Encoder()
    found = run(encoder, job(10, 3), job(20, 4, 5), job(30, 2))
    assert [sorted(firsts) for firsts in encoder.passes] == [[HELD], [10, 20, 21, 30]]
    assert [rows[:, 0].tolist() for rows in found] == [[10], [20, 21], [30]]


def test_short_requests_wait_for_one_pass_of_a_long_one_which_moves_on() -> None:
    half, short = PASS_TOKENS // 2, PASS_TOKENS // 8
    encoder = Encoder()
    found = run(encoder, job(100, *[half] * 6), *[job(first, short) for first in range(10, 30)])
    passes = encoder.passes[1:]
    assert passes == [[*range(10, 18)], [100, 101], [*range(18, 26)], [102, 103], [26, 27, 28, 29, 104], [105]]
    assert found[0][:, 0].tolist() == [100, 101, 102, 103, 104, 105]


def test_longer_kinds_take_turns() -> None:
    """So that one of some texts does not wait for all of one with thousands."""
    encoder = Encoder()
    short = [job(first, PASS_TOKENS // 8) for first in range(10, 90)]
    run(encoder, job(1000, *[PASS_TOKENS] * 20), job(500, PASS_TOKENS // 2), *short)
    begins = [firsts[0] for firsts in encoder.passes[1:9]]
    assert [first for first in begins if first >= 500] == [1000, 500, 1001, 1002]
    assert all(first < 90 for first in begins[::2])


def test_nobody_is_put_off() -> None:
    """Of two kinds, each waits for no more than twice the work that came before."""
    encoder = Encoder()
    lengths = {first: 40 + first * 7 % 300 for first in range(100, 300)}
    run(encoder, *[job(first, length) for first, length in lengths.items()])
    done = 0
    for first in (first for firsts in encoder.passes[1:] for first in firsts):
        before = sum(length for other, length in lengths.items() if other <= first)
        assert done <= 2 * (before + PASS_TOKENS)
        done += lengths[first]


def test_a_text_longer_than_a_pass_is_one() -> None:
    encoder = Encoder()
    found = run(encoder, job(10, PASS_TOKENS + 5, 3), job(20, 1))
    assert encoder.passes[1:] == [[20], [10], [11]]
    assert [rows[:, 0].tolist() for rows in found] == [[10, 11], [20]]


def test_sizes_are_computed_apart() -> None:
    encoder = Encoder()
    found = run(encoder, job(10, 3), job(20, 3), job(30, 3), dims=(DIM, 2, 2))
    assert sorted(map(sorted, encoder.passes[1:])) == [[10], [20, 30]]
    assert [rows.shape for rows in found] == [(1, DIM), (1, 2), (1, 2)]


def test_a_text_without_a_vector_harms_no_other() -> None:
    found = run(Encoder(), job(10, 3), job(BAD, 3), job(30, 3))
    assert isinstance(found[1], VectorError)
    assert [found[i][0, 0] for i in (0, 2)] == [10, 30]


def test_what_nobody_waits_for_is_dropped() -> None:
    encoder = Encoder()

    async def leave() -> int:
        batcher = Batcher(encoder)
        held = asyncio.create_task(batcher.embed(job(HELD, 2), DIM))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(batcher.embed(job(10, 5, 5), DIM))
        await asyncio.sleep(0.05)
        assert batcher.waiting == 12
        gone.cancel()
        await asyncio.sleep(0.05)
        waiting = batcher.waiting
        encoder.go.set()
        await held
        await asyncio.to_thread(batcher.close)
        with pytest.raises(Exception, match="the server has stopped"):
            await batcher.embed(job(10, 5), DIM)
        return waiting

    assert asyncio.run(leave()) == 2
    assert encoder.passes == [[HELD]]
