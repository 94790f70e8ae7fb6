"""The embedding table, rounded by what its errors do to the embeddings of texts, in parts as it is written."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...kernels.layout import ALIGNMENT, ROW_LEVELS, Tensor, pack_table
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

# What progress tells.
TABLE_CALIBRATION, TABLE_PACKING = "calibrating the embedding table:", "packing the embedding table:"

_PART_ROWS = 8192  # rows of the table read at a time: 25 MB in float32

# Damping of the Gram matrix of sensitivities; see gptq.py. More than there, since it is sampled from few texts:
# ../EXPERIMENTS.md.
_DAMPING = 0.5

_GRIDS = {8: GRIDS["int8"], **{bits: Grid(levels) for bits, levels in ROW_LEVELS.items()}}

# A token that occurs this often in the calibration texts (<bos>, <eos>, words of prompts) is rounded half by the
# sensitivity to it, half by the sensitivity to tokens in general.
_FREQUENT = 40


class EmbeddingTable:
    """The embedding table of a checkpoint in the format of a model file.

    Args:
        source: the checkpoint.
        bits: (vocab,) uint8, of an element of each row: 3, 4, 6 or 8; None for float32.
        groups: scales of a row, each for as many elements.
    """

    def __init__(self, source: Checkpoint, bits: npt.NDArray[np.uint8] | None, groups: int = 1) -> None:
        self._source = source
        self._bits = bits
        self._groups = groups
        self._rounders: dict[int, OutputRounder] = {}  # by bits; without one each weight is rounded by itself
        self._frequent: dict[int, OutputRounder] = {}  # by token

    def calibrate(self, batch: CalibrationBatch, progress: Progress) -> None:
        """From now on rounds rows of less than 8 bits by what their errors do to the embeddings of these texts.

        Rows of 8 bits are rounded plainly: calibration brings nothing there (../EXPERIMENTS.md) and doubles the time.
        """
        if self._bits is None or (self._bits == 8).all():
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

        def rounder(gram: npt.NDArray[np.float64], bits: int) -> OutputRounder:
            return OutputRounder(gram, _GRIDS[bits], groups=self._groups, damping=_DAMPING)

        self._rounders = {bits: rounder(general, bits) for bits in np.unique(self._bits).tolist() if bits != 8}
        tokens, counts = np.unique(ids, return_counts=True)
        for token in tokens[(counts >= _FREQUENT) & (self._bits[tokens] != 8)]:
            own = general + normalised(sensitivity[ids == token])
            self._frequent[int(token)] = rounder(own, int(self._bits[token]))

    def tensors(self, progress: Progress, kept: npt.NDArray[np.int64] | None = None) -> Iterator[tuple[str, Tensor]]:
        """The table in parts, and if it is quantised the bits of its rows, if they differ, and its scales.

        Rows of 8 bits alone are int8 (rows, hidden). Rows of other bits are uint8, end to end. kept: those to give,
        ascending; None for all.
        """
        kept = np.arange(self._source.config.vocab) if kept is None else kept
        bits = None if self._bits is None else self._bits[kept]
        is_int8 = self._bits is not None and bool((self._bits == 8).all())
        progress.begin(TABLE_PACKING, len(kept), "rows")
        scales, size = [], 0
        for start in range(0, self._source.config.vocab, _PART_ROWS):
            tokens = kept[np.searchsorted(kept, start) : np.searchsorted(kept, start + _PART_ROWS)]
            if len(tokens) == 0:
                continue
            rows = folded_embedding(self._source, int(tokens[0]), int(tokens[-1]) + 1)[tokens - tokens[0]]
            if self._bits is not None:
                codes, row_scales = self._rounded(rotate_blocks(rows), tokens, self._bits[tokens])
                scales.append(row_scales)
                rows = codes if is_int8 else pack_table(codes, self._bits[tokens])
                size += len(rows)
            yield f"{EMBEDDING}.weight", rows
            progress.advance(len(tokens))
        if bits is not None and not is_int8:
            if size % ALIGNMENT:
                yield f"{EMBEDDING}.weight", np.zeros(-size % ALIGNMENT, np.uint8)
            yield f"{EMBEDDING}.bits", bits
        if bits is not None:
            yield f"{EMBEDDING}.scale", np.concatenate(scales)

    def stored_rows(self, ids: npt.NDArray[np.int32]) -> Float32:
        """The rows of ids (tokens,) as the engine will read them: (tokens, hidden)."""
        used, positions = np.unique(ids, return_inverse=True)
        rows = folded_rows(self._source, used)
        if self._bits is not None:
            codes, scales = self._rounded(rotate_blocks(rows), used, self._bits[used])
            rows = rotate_blocks(QuantizedRows(codes, scales, codes[:, :0].view(np.uint8)).weights())
        return rows[positions]

    def _rounded(
        self, rows: Float32, tokens: npt.NDArray[np.integer], bits: npt.NDArray[np.uint8]
    ) -> tuple[Codes, npt.NDArray[np.float16]]:
        """The levels and float16 scales (rows, groups) of the rotated rows of these tokens, which get these bits."""
        codes, scales = np.empty(rows.shape, np.int8), np.empty((len(rows), self._groups), np.float16)
        for width in np.unique(bits).tolist():
            chosen = np.flatnonzero(bits == width)
            if width in self._rounders:
                rounded = self._rounders[width].round(rows[chosen], np.float16)
            else:
                rounded = quantize_rows(rows[chosen], _GRIDS[width], np.float16, self._groups)
            codes[chosen], scales[chosen] = rounded.codes, rounded.scales
        for i, token in enumerate(tokens.tolist()):
            if token in self._frequent:
                own = self._frequent[token].round(rows[i : i + 1], np.float16)
                codes[i], scales[i] = own.codes[0], own.scales[0]
        return codes, scales
