"""Rounds rows of the embedding table to even steps, each as fine as the words of its levels fit the row's bytes.

Entropy-constrained scalar quantisation: of normally distributed weights it leaves two thirds of the error that the best
levels of a fixed number of bits leave. ../EXPERIMENTS.md has the numbers.
"""

from __future__ import annotations

import functools
import heapq
import math

import numpy as np
import numpy.typing as npt

from ...kernels.embedding_rows import LEVELS, LOWEST, RATE_BITS, WORD_BITS, Bytes, RowCode
from ..checkpoint.checkpoint_tensors import Float32
from .gptq import Float64, OutputRounder
from .quantize import Codes, Grid, check_scales, reciprocals

_REACH = 8  # standard deviations that levels reach
_MOST = 127  # the largest level
_FINEST = _REACH / 2 / _MOST  # a step, in standard deviations
_FITS = 4  # times that steps are set before rows are calibrated
_SPARE = 4  # bits of a row that are aimed to be left, so that most rows fit after that

Scales = npt.NDArray[np.float16]


@functools.cache
def normal_code(rate: int) -> tuple[float, Bytes]:
    """For weights of the standard normal distribution at this rate: the step, and the code lengths of its levels."""
    low, high = _FINEST, 4.0
    for _ in range(40):
        step = math.sqrt(low * high)
        shares = _shares(step)
        if float(shares @ _huffman(shares)) * RATE_BITS > rate:
            low = step
        else:
            high = step
    shares = _shares(high)
    lengths = np.zeros(LEVELS, np.uint8)
    first = -LOWEST - len(shares) // 2
    lengths[first : first + len(shares)] = _huffman(shares)
    return high, lengths


def _shares(step: float) -> Float64:
    """How frequent each level of the standard normal distribution is, from the lowest to the highest."""
    most = min(_MOST, math.ceil(_REACH / step))
    ends = (np.arange(-most, most + 2) - 0.5) * step
    below = np.array([math.erf(end / math.sqrt(2)) for end in ends]) / 2
    below[0], below[-1] = -0.5, 0.5
    return np.diff(below)


def _huffman(shares: Float64) -> npt.NDArray[np.int64]:
    """The lengths of words of a Huffman code, of at most WORD_BITS bits."""
    least = 0.0  # what the rarest count as, so that their words are not too long
    while True:
        heap = [(max(share, least), place, [place]) for place, share in enumerate(shares.tolist())]
        heapq.heapify(heap)
        lengths = np.zeros(len(shares), np.int64)
        while len(heap) > 1:
            (a, _, of_a), (b, place, of_b) = heapq.heappop(heap), heapq.heappop(heap)
            lengths[of_a + of_b] += 1
            heapq.heappush(heap, (a + b, place, of_a + of_b))
        if lengths.max() <= WORD_BITS:
            return lengths
        least = max(1.3 * least, 2.0 ** -(WORD_BITS + 3))


class RowRounder:
    """Rounds rows to levels whose words fit a rate.

    Args:
        rate: of the rows.

    Attributes:
        code: of the levels.
        grid, groups, is_calibrated: as in `RowFormat` of embedding.py.
    """

    groups, is_calibrated = 1, True

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._step, lengths = normal_code(rate)
        self.code = RowCode(rate, lengths)
        self.grid = Grid(np.flatnonzero(lengths) + LOWEST)

    def round(self, rows: Float32, rounder: OutputRounder | None) -> tuple[Codes, Scales]:
        """The levels and scales (rows, 1) of rows (rows, hidden); rounder says what errors cost, each the same if None.

        Raises CheckpointError for weights that do not fit a scale.
        """
        hidden = rows.shape[1]
        budget = hidden * self._rate // RATE_BITS  # bits
        with np.errstate(over="ignore"):  # reported by check_scales
            least = np.nextafter((np.abs(rows).max(axis=1) / self.grid.high).astype(np.float16), np.float16(np.inf))
            least[~rows.any(axis=1)] = 0
            scales = np.sqrt(np.einsum("rc,rc->r", rows, rows) / hidden) * np.float32(self._step)
            for _ in range(_FITS):
                steps = np.maximum(scales.astype(np.float16), least)
                check_scales(steps, rows)
                over = self.code.size(self._nearest(rows, steps)) - budget + _SPARE
                scales *= np.exp2(over / hidden, dtype=np.float32)
            steps = np.maximum(scales.astype(np.float16), least)
            levels = np.empty(rows.shape, np.int8)
            left = np.arange(len(rows))
            while len(left):
                check_scales(steps[left], rows)
                levels[left] = self._rounded(rows[left], steps[left], rounder)
                over = self.code.size(levels[left]) - budget
                left, over = left[over > 0], over[over > 0]
                wider = (steps[left] * np.exp2((over + _SPARE) / hidden, dtype=np.float32)).astype(np.float16)
                steps[left] = np.maximum(wider, np.nextafter(steps[left], np.float16(np.inf)))
        return levels, steps[:, None]

    def _rounded(self, rows: Float32, steps: Scales, rounder: OutputRounder | None) -> Codes:
        if rounder is None:
            return self._nearest(rows, steps)
        return rounder.codes(rows, steps.astype(np.float32)[:, None])[0]

    def _nearest(self, rows: Float32, steps: Scales) -> Codes:
        return self.grid.nearest(rows * reciprocals(steps.astype(np.float32))[:, None]).astype(np.int8)
