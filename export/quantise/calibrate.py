"""Quantises the layers one after another, each for the inputs that those before it leave.

The calibration texts go through the model once, as it will be computed: with int8 activations and with all that is
quantised so far. What comes in at a matrix tells which of its errors matter; see gptq.py. Model files and ONNX models
differ in how a matrix is stored, in the blocks that are rotated, and in who rotates the inputs of `o`.

Tried and left out, as the cosines to float32 over the golden texts, mean / min, did not get better by it:

- Matrices that give the float32 model's outputs from the quantised inputs (GPTAQ, arXiv 2504.02692): with some 9,000
  tokens they learn their noise. int8 0.9978 / 0.990, without 0.9987 / 0.989.
- Tokens weighted by the gradient of the embedding: the error of outputs on held-out texts is 1.5 to 2.7 % larger, as
  fewer tokens then decide. With a Gram matrix that also knows which tokens' errors add up in the embedding: int4 0.9808
  / 0.936, without 0.9808 / 0.946.
- Rows that make up for each other's errors, by the Gram matrix of gradients at the outputs (YAQA, arXiv 2505.22988):
  mixed 0.9910 / 0.959 with the gradients of 271 texts and 0.9916 / 0.960 with those of 877, without 0.9917 / 0.956. A
  twentieth of the tokens has up to nine tenths of the square of such gradients; with these cut down, 0.9917 / 0.959.
- Norms and channel scales trained on the embeddings of the calibration texts, two passes of Adam: the loss on those
  falls from 0.0152 to 0.0131, int4 on golden texts stays at 0.981.
- Seven times as many texts, 66,000 tokens: mixed 0.9916 / 0.954, with those that ship 0.9917 / 0.956.
- Tokens weighted by how little `down` puts out for them, since the norm behind it divides by that. 1 - cosine of
  mixed, in 1e-4, mean / median over 564 other short texts in 65 languages: 178.5 / 133.9, without 180.5 / 135.7.
- The head fitted to what the last layer leaves, by ridge regression on 50,000 tokens: 172.0 / 132.2, without 178.7 /
  138.5; with the tokens that ship the fit would be noise.
- Codebooks chosen after rounding a run of inputs in each: 125.2 / 95.1 with the tokens weighted as above, without
  either 125.7 / 93.3.
- Codes of feed-forward matrices learned by gradient, straight through the rounding, so that the block gives what it
  gives in float32: 60 steps of Adam over 1,536 tokens each. Of three layers' relative squared error on tokens that were
  held out, 4 to 10 % goes, on the tokens learned from 24 % or more; it takes 38 s a layer on two cores of 2 GHz, in
  all longer than the rest of a conversion.

The first three were tried while int4 had even steps, all but the last two before it had several codebooks, and all
before half of the texts that ship were written: short sentences without a prompt, by which mixed went from 126.7 /
93.2 to 122.3 / 90.9 on the 564 texts (scheme.py has the golden ones).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np

from ...kernels.rotation import ROTATION, rotate_blocks
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.checkpoint_tensors import Float32
from ..checkpoint.folds import folded_matrix, folded_norm, rotated_layer
from . import forward
from .calibration import CalibrationBatch
from .embedding import EmbeddingTable
from .forward import Layer, Offsets
from .gptq import Float64

_LAYER_PARTS = (  # in file order
    *("input_norm", "qkv", "q_norm", "k_norm", "o", "post_attention_norm"),
    *("pre_ffn_norm", "gate_up", "down", "post_ffn_norm"),
)

_PIECE_TOKENS = 8  # the head is calibrated on means over pieces of the texts, as there are few texts


class Stored(Protocol):
    """A matrix in rotated columns (../kernels/rotation.py), as a format stores it."""

    def weights(self) -> Float32:
        """What it stands for: (out_features, in_features)."""


Matrix = TypeVar("Matrix", bound=Stored)

# Rounds the matrix of this name, (out_features, in_features) in rotated columns, whose inputs have this Gram matrix.
Rounder = Callable[[str, Float32, Float64], Matrix]


class Calibrator(Generic[Matrix]):
    """Quantises a checkpoint on calibration texts, which `parts` takes through the model once.

    Args:
        source: the checkpoint.
        batch: the texts.
        table: the embedding table.
        rounder: how each matrix is rounded.
        block: the columns that are rotated together.
        rotated_values: whether values leave `qkv` rotated, so that the inputs of `o` need not be.
    """

    def __init__(
        self,
        source: Checkpoint,
        batch: CalibrationBatch,
        table: EmbeddingTable,
        rounder: Rounder[Matrix],
        *,
        block: int = ROTATION,
        rotated_values: bool = False,
    ) -> None:
        self._source = source
        self._config = source.config
        self._offsets = batch.offsets
        self._round = rounder
        self._block = block
        self._rotated_values = rotated_values
        self._hidden = table.stored_rows(batch.ids)  # (tokens, hidden): the texts as the engine will compute them

    def parts(self) -> Iterator[tuple[str, Matrix | Float32]]:
        """The matrices and norms from the first layer to the head by name, in the order of a model file."""
        for i in range(self._config.layers):
            name = f"layers.{i}"
            layer = rotated_layer(self._source, i, self._block, values=self._rotated_values)
            quantized = self._layer(i, layer)
            yield from ((f"{name}.{part}", quantized.get(part, layer[part])) for part in _LAYER_PARTS)
        final_norm = folded_norm(self._source, "final_norm")
        yield "final_norm", final_norm
        yield "head", self._head(final_norm)

    def _layer(self, index: int, layer: Layer) -> dict[str, Matrix]:
        """Quantises the matrices of a layer, and takes the texts past it."""
        eps = self._config.rms_norm_eps
        quantized: dict[str, Matrix] = {}

        def product(name: str, x: Float32) -> Float32:
            is_rotated = name == "o" and self._rotated_values
            x = forward.int8_rounded(x if is_rotated else rotate_blocks(x, self._block))
            quantized[name] = self._round(f"layers.{index}.{name}", layer[name], gram_matrix(x))
            return np.asarray(x @ quantized[name].weights().T)

        qkv = product("qkv", forward.rms_norm(self._hidden, layer["input_norm"], eps))
        out = product("o", forward.attention(self._config, index, layer, qkv, self._offsets))
        self._hidden = self._hidden + forward.rms_norm(out, layer["post_attention_norm"], eps)
        gate_up = product("gate_up", forward.rms_norm(self._hidden, layer["pre_ffn_norm"], eps))
        out = product("down", forward.geglu(gate_up))
        self._hidden = self._hidden + forward.rms_norm(out, layer["post_ffn_norm"], eps)
        return quantized

    def _head(self, final_norm: Float32) -> Matrix:
        normed = forward.rms_norm(self._hidden, final_norm, self._config.rms_norm_eps)
        x = forward.int8_rounded(rotate_blocks(forward.pooled(normed, pieces_of(self._offsets)), self._block))
        return self._round("head", rotate_blocks(folded_matrix(self._source, "head"), self._block), gram_matrix(x))


def gram_matrix(x: Float32) -> Float64:
    """The sum of x xᵀ over tokens, (columns, columns), for x (tokens, columns)."""
    return np.asarray(x.T @ x, np.float64)


def pieces_of(offsets: Offsets) -> Offsets:
    """Offsets that cut every text into pieces of _PIECE_TOKENS tokens or fewer."""
    cuts = [np.arange(start, stop, _PIECE_TOKENS) for start, stop in itertools.pairwise(offsets)]
    return np.append(np.concatenate(cuts), offsets[-1])
