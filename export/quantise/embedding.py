"""The embedding table, rounded by what its errors do to the embeddings of texts, in parts as it is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ...kernels.layout import RowFormat, Tensor, pack_embedding
from ...kernels.model_file import EMBEDDING
from ...kernels.rotation import rotate_blocks
from ...notices import Progress
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import folded_embedding, folded_rows
from .calibration import CalibrationBatch
from .gptq import OutputRounder
from .gradient import embedding_sensitivity
from .quantize import GRIDS, INT4_ONE_CODEBOOK, Grid, QuantizedRows, quantize_rows

# What progress tells.
TABLE_CALIBRATION, TABLE_PACKING = "calibrating the embedding table:", "packing the embedding table:"

_PART_ROWS = 8192  # rows of the table read at a time: 25 MB in float32

# Damping of the Gram matrix of sensitivities; see gptq.py. More than there, since it is sampled from few texts:
# ../EXPERIMENTS.md.
_DAMPING = 0.5

# A token that occurs this often in the calibration texts (<bos>, <eos>, words of prompts) is rounded half by the
# sensitivity to it, half by the sensitivity to tokens in general.
_FREQUENT = 40


class EmbeddingTable:
    """The embedding table of a checkpoint in the format of a model file.

    Args:
        source: the checkpoint.
        row: how its rows are stored.
    """

    def __init__(self, source: Checkpoint, row: RowFormat) -> None:
        self._source = source
        self._row = row
        self._grid = INT4_ONE_CODEBOOK if row.format == "int4" and not row.codebooks else GRIDS.get(row.format)
        self._rounder: OutputRounder | None = None  # rounds each weight by itself
        self._frequent: dict[int, OutputRounder] = {}  # by token

    def calibrate(self, batch: CalibrationBatch, progress: Progress) -> None:
        """From now on rounds int4 rows by what their errors do to the embeddings of these texts.

        int8 rows are rounded plainly: calibration brings nothing there (../EXPERIMENTS.md) and doubles the time.
        """
        if self._row.format != "int4" or self._grid is None:
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
        self._rounder = OutputRounder(general, self._grid, groups=self._row.groups, damping=_DAMPING)
        tokens, counts = np.unique(ids, return_counts=True)
        for token in tokens[counts >= _FREQUENT]:
            own = general + normalised(sensitivity[ids == token])
            self._frequent[int(token)] = OutputRounder(own, self._grid, groups=self._row.groups, damping=_DAMPING)

    def tensors(self, progress: Progress) -> Iterator[tuple[str, Tensor]]:
        """The table in parts, and its scales if it is quantised: one per row and group of columns."""
        vocab = self._source.config.vocab
        progress.begin(TABLE_PACKING, vocab, "rows")
        scales = np.empty((vocab, self._row.groups), np.float16)
        for start in range(0, vocab, _PART_ROWS):
            stop = min(start + _PART_ROWS, vocab)
            rows = folded_embedding(self._source, start, stop)
            if self._grid is None:
                yield f"{EMBEDDING}.weight", rows
            else:
                rounded = self._rounded(self._grid, rotate_blocks(rows), range(start, stop))
                scales[start:stop] = rounded.scales
                codebooks = rounded.codebooks if self._row.codebooks else None
                yield f"{EMBEDDING}.weight", pack_embedding(rounded.codes, self._row.format, codebooks)
            progress.advance(stop - start)
        if self._grid is not None:
            yield f"{EMBEDDING}.scale", scales

    def stored_rows(self, ids: npt.NDArray[np.int32]) -> Float32:
        """The rows of ids (tokens,) as the engine will read them: (tokens, hidden)."""
        used, positions = np.unique(ids, return_inverse=True)
        rows = folded_rows(self._source, used)
        if self._grid is not None:
            rows = rotate_blocks(self._rounded(self._grid, rotate_blocks(rows), used.tolist()).weights())
        return rows[positions]

    def _rounded(self, grid: Grid, rows: Float32, tokens: Sequence[int]) -> QuantizedRows:
        """The rotated rows of these tokens, rounded, with float16 scales."""
        if self._rounder is None:
            return quantize_rows(rows, grid, np.float16, self._row.groups)
        rounded = self._rounder.round(rows, np.float16)
        for i, token in enumerate(tokens):
            if token in self._frequent:
                own = self._frequent[token].round(rows[i : i + 1], np.float16)
                for all_rows, row in zip(vars(rounded).values(), vars(own).values(), strict=True):
                    all_rows[i] = row[0]
        return rounded
