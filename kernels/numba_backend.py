"""The `Backend` that Numba compiles on first use: for machines where the C engine could not be built.

It does what the C engine does, from the same panels, through LLVM. The first call compiles for some seconds and
keeps the result on disk (numba_jit.py); later processes load it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from .batch import check_batch
from .errors import InputError
from .layout import embedding_rows
from .numba_forward import STAGES_AROUND, STAGES_PER_LAYER, forward
from .numba_memory import Held, Room, hold_batch, hold_model, hold_scratch, key_slots, rope_table
from .numba_threads import make_teams
from .numba_tiles import CPU_NAME, ISA
from .numba_views import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from .config import EncoderConfig
    from .layout import Tensor
    from .numba_state import Scratch
    from .numba_views import F32, I64

# Texts are run in groups of up to so many tokens (one text may be longer). More take more memory, 20 kB a token, and
# more time: 1,024 took 6 % longer and 4,096 13 %, as intermediate values leave the caches.
GROUP_TOKENS = 512

MAX_THREADS = 256  # more is a mistake, and the C engine has the same limit


class NumbaBackend:
    """A model bound to compiled NumPy code. Calls from several threads are safe, and run at the same time.

    Args:
        config, tensors: as `read_model_file` gives them; a missing or misshapen tensor is a ModelFileError.
        threads: how many threads work on a call; None for as many as Numba would take: NUMBA_NUM_THREADS, or the
            number of CPUs that this process may use.
    """

    name = "numba"
    isa = f"llvm {CPU_NAME} {ISA}"

    def __init__(self, config: EncoderConfig, tensors: Mapping[str, Tensor], threads: int | None = None) -> None:
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise InputError(f"threads={threads}; expected 1 to {MAX_THREADS}")
        self.config = config
        self.threads: int = threads or min(numba.config.NUMBA_NUM_THREADS, MAX_THREADS)
        self._table = tensors["embedding.weight"], tensors.get("embedding.scale")
        self._model = hold_model(config, tensors)
        self._rope = rope_table(config, 0)
        self._idle: list[tuple[Room, Held[Scratch]]] = []  # of calls that have ended
        self._start_helpers()

    def encode(
        self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """See Backend.encode."""
        ids, offsets = check_batch(self.config, ids, offsets, dim)
        out = np.empty((len(offsets) - 1, dim), np.float32)
        for first, last in _groups(offsets):
            start, end = offsets[first], offsets[last]
            self._encode_group(ids[start:end], offsets[first : last + 1] - start, normalize, out[first:last])
        return out

    def _encode_group(self, ids: npt.NDArray[np.int32], offsets: I64, normalize: bool, out: F32) -> None:
        """Embeds texts that run through the model together, into out (texts, dim)."""
        hidden = embedding_rows(*self._table, self.config.hidden, ids)
        lengths = np.diff(offsets)
        longest = int(lengths.max())
        rope = self._rope = self._rope if len(self._rope) >= longest else rope_table(self.config, longest)
        batch = hold_batch(offsets, rope)
        slots = key_slots(lengths)
        room, scratch = self._take_scratch(Room(len(ids), int(slots.sum()), int(slots.max())))
        teams, counters = make_teams(self.threads, STAGES_PER_LAYER * self.config.layers + STAGES_AROUND)
        shared = (self._model.value, batch.value, scratch.value)
        calls = [(*shared, team, rows_of(hidden), out.shape[1], normalize, rows_of(out)) for team in teams]
        held = (self._model, batch, scratch, counters, hidden, out)
        if self._process != os.getpid():  # a fork: threads stay with the parent
            self._start_helpers()
        helpers = [self._helpers.submit(_help, call, held) for call in calls[1:]]
        forward(*calls[0])
        for helper in helpers:
            if not helper.cancel():  # it is running, finds nothing left to do, and ends
                helper.result()
        self._idle.append((room, scratch))

    def _start_helpers(self) -> None:
        self._helpers = ThreadPoolExecutor(max(1, self.threads - 1), "embgemma")
        self._process = os.getpid()

    def _take_scratch(self, room: Room) -> tuple[Room, Held[Scratch]]:
        """Memory with that much room: used before, if there is any, else new. No other call has it."""
        try:
            owned = self._idle.pop()  # one step, so that calls from several threads get one each
        except IndexError:
            return room, hold_scratch(self.config, self.threads, room)
        return owned if owned[0].holds(room) else (room, hold_scratch(self.config, self.threads, room))


def _help(call: tuple[Any, ...], _held: tuple[Any, ...]) -> None:
    """One thread's part of a forward pass. Holds what it works on, since an interrupt may end the call it is for."""
    forward(*call)


def _groups(offsets: I64) -> Iterator[tuple[int, int]]:
    """First text, and last text plus one, of groups of consecutive texts of up to GROUP_TOKENS tokens, or one text."""
    first, texts = 0, len(offsets) - 1
    while first < texts:
        fitting = int(np.searchsorted(offsets, offsets[first] + GROUP_TOKENS, side="right")) - 1
        last = max(fitting, first + 1)
        yield first, last
        first = last
