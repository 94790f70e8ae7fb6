"""Quantises the layers one after another, each for the inputs that those before it leave.

The calibration texts go through the model once, as the engine will compute them: with int8 activations and with all
that is quantised so far. What comes in at a matrix tells which of its errors matter; see gptq.py.

Tried and left out, as the cosines to float32 over the golden texts, mean / min, did not get better by it:

- Matrices that give the float32 model's outputs from the quantised inputs (GPTAQ, arXiv 2504.02692): with some 9,000
  tokens they learn their noise. int8 0.9978 / 0.990, without 0.9987 / 0.989.
- Tokens weighted by the gradient of the embedding: the error of outputs on held-out texts is 1.5 to 2.7 % larger, as
  fewer tokens then decide. With a Gram matrix that also knows which tokens' errors add up in the embedding: int4 0.9808
  / 0.936, without 0.9808 / 0.946.
- Rows that make up for each other's errors, by the Gram matrix of gradients at the outputs (YAQA, arXiv 2505.22988):
  mixed 0.9910 / 0.959 with the gradients of 271 texts and 0.9916 / 0.960 with those of 877, without 0.9917 / 0.956. A
  twentieth of the tokens has up to nine tenths of the square of such gradients.
- Norms and channel scales trained on the embeddings of the calibration texts, two passes of Adam: the loss on those
  falls from 0.0152 to 0.0131, int4 on golden texts stays at 0.981.
- Seven times as many texts, 66,000 tokens: mixed 0.9916 / 0.954, with those that ship 0.9917 / 0.956.

All but those of YAQA and of more texts were tried while int4 had even steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..kernels.layout import MatrixFormat
from ..kernels.rotation import rotate_blocks
from . import forward
from .calibration import CalibrationBatch
from .checkpoint import Checkpoint
from .embedding import EmbeddingTable
from .folds import folded_layer, folded_matrix, folded_norm
from .forward import Layer, Offsets
from .gptq import Float64, gptq
from .quantize import GRIDS, Codes
from .weights import Float32

_LAYER_PARTS = (  # in file order
    *("input_norm", "qkv", "q_norm", "k_norm", "o", "post_attention_norm"),
    *("pre_ffn_norm", "gate_up", "down", "post_ffn_norm"),
)

_PIECE_TOKENS = 8  # the head is calibrated on means over pieces of the texts, as there are few texts


@dataclass(frozen=True)
class QuantizedMatrix:
    """A matrix in rotated columns: `rotate_blocks(x) @ (codes * scales[:, None]).T` is about x times its transpose."""

    codes: Codes  # (out_features, in_features) int8, of the grid of its format
    scales: Float32  # (out_features,)


class Calibrator:
    """Quantises a checkpoint on calibration texts, which `parts` takes through the model once.

    Args:
        source: the checkpoint.
        formats: the format of each matrix by name; none is float32.
        batch: the texts.
        table: the embedding table.
    """

    def __init__(
        self, source: Checkpoint, formats: Mapping[str, MatrixFormat], batch: CalibrationBatch, table: EmbeddingTable
    ) -> None:
        self._source = source
        self._config = source.config
        self._formats = formats
        self._offsets = batch.offsets
        self._hidden = table.stored_rows(batch.ids)  # (tokens, hidden): the texts as the engine will compute them

    def parts(self) -> Iterator[tuple[str, QuantizedMatrix | Float32]]:
        """The matrices and norms from the first layer to the head by name, in the order of a model file."""
        for i in range(self._config.layers):
            name = f"layers.{i}"
            layer = folded_layer(self._source, i)
            quantized = self._layer(i, layer)
            yield from ((f"{name}.{part}", quantized.get(part, layer[part])) for part in _LAYER_PARTS)
        final_norm = folded_norm(self._source, "final_norm")
        yield "final_norm", final_norm
        yield "head", self._head(final_norm)

    def _layer(self, index: int, layer: Layer) -> dict[str, QuantizedMatrix]:
        """Quantises the matrices of a layer, and takes the texts past it."""
        eps = self._config.rms_norm_eps
        quantized: dict[str, QuantizedMatrix] = {}

        def product(matrix: str, x: Float32) -> Float32:
            x = forward.integer_inputs(x)
            quantized[matrix] = _quantized(layer[matrix], x, self._formats[f"layers.{index}.{matrix}"])
            return np.asarray(x @ (quantized[matrix].codes * quantized[matrix].scales[:, None]).T)

        qkv = product("qkv", forward.rms_norm(self._hidden, layer["input_norm"], eps))
        out = product("o", forward.attention(self._config, index, layer, qkv, self._offsets))
        self._hidden = self._hidden + forward.rms_norm(out, layer["post_attention_norm"], eps)
        gate_up = product("gate_up", forward.rms_norm(self._hidden, layer["pre_ffn_norm"], eps))
        out = product("down", forward.geglu(gate_up))
        self._hidden = self._hidden + forward.rms_norm(out, layer["post_ffn_norm"], eps)
        return quantized

    def _head(self, final_norm: Float32) -> QuantizedMatrix:
        normed = forward.rms_norm(self._hidden, final_norm, self._config.rms_norm_eps)
        x = forward.integer_inputs(forward.pooled(normed, pieces_of(self._offsets)))
        return _quantized(folded_matrix(self._source, "head"), x, self._formats["head"])


def _quantized(weights: Float32, x: Float32, matrix_format: MatrixFormat) -> QuantizedMatrix:
    """weights (out_features, in_features) for inputs x (tokens, in_features), which are rotated and rounded."""
    return QuantizedMatrix(*gptq(rotate_blocks(weights), gram_matrix(x), GRIDS[matrix_format]))


def gram_matrix(x: Float32) -> Float64:
    """The sum of x xᵀ over tokens, (columns, columns), for x (tokens, columns)."""
    return np.asarray(x.T @ x, np.float64)


def pieces_of(offsets: Offsets) -> Offsets:
    """Offsets that cut every text into pieces of _PIECE_TOKENS tokens or fewer."""
    cuts = [np.arange(start, stop, _PIECE_TOKENS) for start, stop in itertools.pairwise(offsets)]
    return np.append(np.concatenate(cuts), offsets[-1])
