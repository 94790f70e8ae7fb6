"""The embedding table, rounded by what its errors do to the embeddings of texts, in parts as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...kernels.embedding_rows import LEVELS, RATES, encode_table
from ...kernels.layout import ALIGNMENT, Tensor
from ...kernels.model_file import EMBEDDING
from ...kernels.rotation import rotate_blocks
from ...notices import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import folded_embedding, folded_rows
from .calibration import CalibrationBatch
from .gptq import OutputRounder
from .gradient import embedding_sensitivity
from .quantize import GRIDS, Codes, Grid, QuantizedRows, quantize_rows
from .row_rounder import RowRounder, Scales

# What progress tells.
TABLE_CALIBRATION, TABLE_PACKING = "calibrating the embedding table:", "packing the embedding table:"

_PART_ROWS = 8192  # rows of the table read at a time: 25 MB in float32

# Damping of the Gram matrix of sensitivities; see gptq.py. More than there, since it is sampled from few texts:
# ../EXPERIMENTS.md.
_DAMPING = 0.5

# A token that occurs this often in the calibration texts (<bos>, <eos>, words of prompts) is rounded half by the
# sensitivity to it, half by the sensitivity to tokens in general.
_FREQUENT = 40


class RowFormat(Protocol):
    """A way to round rows.

    Attributes:
        grid: the levels.
        groups: scales of a row, each for as many elements.
        is_calibrated: whether rows gain by calibration.
    """

    grid: Grid
    groups: int
    is_calibrated: bool

    def round(self, rows: Float32, rounder: OutputRounder | None) -> tuple[Codes, Scales]:
        """The levels and scales (rows, groups) of rows (rows, hidden); rounder says what errors cost, if it matters."""


class GridRows:
    """Rows that are all of one length, each as fine as its levels reach."""

    def __init__(self, grid: Grid, groups: int = 1, *, is_calibrated: bool = True) -> None:
        self.grid, self.groups, self.is_calibrated = grid, groups, is_calibrated

    def round(self, rows: Float32, rounder: OutputRounder | None) -> tuple[Codes, Scales]:
        """See RowFormat.round."""
        if rounder is None:
            rounded = quantize_rows(rows, self.grid, np.float16, self.groups)
        else:
            rounded = rounder.round(rows, np.float16)
        return rounded.codes, np.asarray(rounded.scales, np.float16)


def int8_rows(groups: int = 1) -> GridRows:
    """Those of int8 are rounded plainly: calibration brings nothing there (../EXPERIMENTS.md) and doubles the time."""
    return GridRows(GRIDS["int8"], groups, is_calibrated=False)


class EmbeddingTable:
    """The embedding table of a checkpoint, as float32 or rounded.

    Args:
        source: the checkpoint.
        formats: of rows, by number; for `tensors` the rates of RowRounder, or int8_rows alone. None are float32.
        numbers: (vocab,) uint8: which format each row has; not for float32.
    """

    def __init__(
        self,
        source: Checkpoint,
        formats: Mapping[int, RowFormat] | None = None,
        numbers: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        self._source = source
        self._formats = formats or {}
        self._numbers = np.zeros(source.config.vocab, np.uint8) if numbers is None else numbers
        self._rounders: dict[int, OutputRounder] = {}  # by format; without one each weight is rounded by itself
        self._frequent: dict[int, OutputRounder] = {}  # by token

    def calibrate(self, batch: CalibrationBatch, progress: Progress) -> None:
        """From now on rounds rows that gain by it by what their errors do to the embeddings of these texts."""
        calibrated = [number for number, rows in self._formats.items() if rows.is_calibrated]
        if not calibrated:
            return
        ids = batch.ids
        progress.begin(TABLE_CALIBRATION, len(batch.offsets) - 1, "texts")
        rows = folded_rows(self._source, ids)
        sensitivity = embedding_sensitivity(self._source, batch, rows, progress.advance)

        def normalised(samples: Float32) -> npt.NDArray[np.float64]:
            gram = (samples.T @ samples).astype(np.float64)
            return np.asarray(gram / max(float(np.trace(gram)), np.finfo(np.float32).tiny))

        sensitivity = rotate_blocks(sensitivity)
        general = normalised(sensitivity)

        def rounder(gram: npt.NDArray[np.float64], number: int) -> OutputRounder:
            rows = self._formats[number]
            return OutputRounder(gram, rows.grid, groups=rows.groups, damping=_DAMPING)

        self._rounders = {number: rounder(general, number) for number in calibrated}
        tokens, counts = np.unique(ids, return_counts=True)
        for token in tokens[(counts >= _FREQUENT) & np.isin(self._numbers[tokens], calibrated)]:
            own = general + normalised(sensitivity[ids == token])
            self._frequent[int(token)] = rounder(own, int(self._numbers[token]))

    def parts(
        self, progress: Progress, kept: npt.NDArray[np.int64] | None = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], Tensor, Scales | None]]:
        """The table in parts: which rows, as float32 or their levels (rows, hidden), and scales (rows, groups).

        kept: those to give, ascending; None for all.
        """
        kept = np.arange(self._source.config.vocab) if kept is None else kept
        progress.begin(TABLE_PACKING, len(kept), "rows")
        for start in range(0, self._source.config.vocab, _PART_ROWS):
            tokens = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + _PART_ROWS)]
            if len(tokens) == 0:
                continue
            rows = folded_embedding(self._source, int(tokens[0]), int(tokens[-1]) + 1)[tokens - tokens[0]]
            yield tokens, *(self._rounded(rotate_blocks(rows), tokens) if self._formats else (rows, None))
            progress.advance(len(tokens))

    def tensors(self, progress: Progress, kept: npt.NDArray[np.int64] | None = None) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a model file: the rows in parts, and what is beside them. kept as in `parts`."""
        codes = {rate: rows.code for rate, rows in self._formats.items() if isinstance(rows, RowRounder)}
        scales, size = [], 0
        for tokens, rows, row_scales in self.parts(progress, kept):
            stored = encode_table(rows, self._numbers[tokens], codes) if codes else rows
            yield f"{EMBEDDING}.weight", stored
            size += len(stored)
            scales += [] if row_scales is None else [row_scales[:, 0]]
        if codes:
            if size % ALIGNMENT:
                yield f"{EMBEDDING}.weight", np.zeros(-size % ALIGNMENT, np.uint8)
            yield f"{EMBEDDING}.rate", self._numbers if kept is None else self._numbers[kept]
            lengths = np.zeros((RATES, LEVELS), np.uint8)
            for rate, code in codes.items():
                lengths[rate - 1] = code.lengths
            yield f"{EMBEDDING}.code_length", lengths
        if scales:
            yield f"{EMBEDDING}.scale", np.concatenate(scales)

    def stored_rows(self, ids: npt.NDArray[np.int32]) -> Float32:
        """The rows of ids (tokens,) as the engine will read them: (tokens, hidden)."""
        used, positions = np.unique(ids, return_inverse=True)
        rows = folded_rows(self._source, used)
        if self._formats:
            codes, scales = self._rounded(rotate_blocks(rows), used)
            rows = rotate_blocks(QuantizedRows(codes, scales, codes[:, :0].view(np.uint8)).weights())
        return rows[positions]

    def _rounded(self, rows: Float32, tokens: npt.NDArray[np.integer]) -> tuple[Codes, Scales]:
        """The levels and scales of the rotated rows of these tokens."""
        numbers = self._numbers[tokens]
        groups = next(iter(self._formats.values())).groups
        codes, scales = np.empty(rows.shape, np.int8), np.empty((len(rows), groups), np.float16)
        for number in np.unique(numbers).tolist():
            chosen = np.flatnonzero(numbers == number)
            codes[chosen], scales[chosen] = self._formats[number].round(rows[chosen], self._rounders.get(number))
        for i, token in enumerate(tokens.tolist()):
            if token in self._frequent:
                own = self._formats[numbers[i]].round(rows[i : i + 1], self._frequent[token])
                codes[i], scales[i] = own[0][0], own[1][0]
        return codes, scales
