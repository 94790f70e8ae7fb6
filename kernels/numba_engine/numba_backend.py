"""The `Backend` for machines where the C engine could not be built. Its first call compiles for some seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import numpy.typing as npt

from ..batch import check_batch, check_finite, finish_vectors, runs_of_texts
from ..config import EncoderConfig
from ..cpu_quota import cpu_quota
from ..embedding_rows import EmbeddingRows
from ..errors import InputError
from ..layout import DTYPE_FORMATS, PANEL, Tensor, matrices
from .numba_dot import CPU_NAME, ISA
from .numba_forward import STEPS_AROUND, STEPS_PER_LAYER, Model, forward
from .numba_matmul import F32, FORMATS, MATRIX, WIDTH, Scratch
from .numba_ops import BLOCK_QUERIES, I64, KEY_GRAIN
from .numba_rows import decode_rows
from .numba_team import make_teams

GROUP_TOKENS = 512  # texts run together up to so many: more take 20 kB a token, and more time as they leave the caches
SPREAD = PANEL  # added to rows of float32: an even number of cache lines would fall into few sets of a cache
MAX_THREADS = 256  # more is a mistake, and the C engine has the same limit

NORMS = ("input_norm", "post_attention_norm", "pre_ffn_norm", "post_ffn_norm")  # in the order of a layer


class NumbaBackend:
    """A model bound to compiled NumPy code. Calls from several threads are safe, and run at the same time.

    tensors are as `read_model_file` gives them. threads is how many work on a call; None for as many as Numba would
    take, NUMBA_NUM_THREADS or the number of CPUs that this process may use, but no more than its CPU quota.
    """

    name = "numba"
    isa = f"llvm {CPU_NAME} {ISA}"

    def __init__(self, config: EncoderConfig, tensors: Mapping[str, Tensor], threads: int | None = None) -> None:
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise InputError(f"threads={threads}; expected 1 to {MAX_THREADS}")
        self.config = config
        self.threads: int = threads or min(numba.config.NUMBA_NUM_THREADS, MAX_THREADS, cpu_quota() or MAX_THREADS)
        self._rows = EmbeddingRows(tensors, config.hidden, decode_rows)
        self._model, self._weights = _bind(config, tensors)
        self._rope = _rope_table(config, 1)
        self._start_helpers()

    def encode(self, ids: npt.NDArray[np.int32], offsets: I64, dim: int, normalize: bool) -> F32:
        """See Backend.encode."""
        ids, offsets = check_batch(self.config, ids, offsets, dim)
        out = np.empty((len(offsets) - 1, dim), np.float32)
        for first, last in runs_of_texts(offsets, GROUP_TOKENS):
            out[first:last] = self._encode_group(ids, offsets[first : last + 1], dim)[1]
        return finish_vectors(out, normalize)

    def encode_tokens(self, ids: npt.NDArray[np.int32], offsets: I64) -> F32:
        """See Backend.encode_tokens."""
        ids, offsets = check_batch(self.config, ids, offsets, self.config.hidden)
        out = np.empty((len(ids), self.config.hidden), np.float32)
        for first, last in runs_of_texts(offsets, GROUP_TOKENS):
            out[offsets[first] : offsets[last]] = self._encode_group(ids, offsets[first : last + 1], 1)[0]
        return check_finite(out, offsets)

    def _encode_group(self, ids: npt.NDArray[np.int32], offsets: I64, dim: int) -> tuple[F32, F32]:
        """Of texts that run through the model together: states (tokens, hidden), and vectors, not normalised."""
        ids, offsets = ids[offsets[0] : offsets[-1]], offsets - offsets[0]
        with np.errstate(all="ignore"):  # what damaged weights give is not finite to the end
            hidden = np.ascontiguousarray(self._rows.values(ids))
        longest = int(np.diff(offsets).max())
        rope = self._rope = self._rope if self._rope.shape[1] >= longest else _rope_table(self.config, longest)
        blocks, slots = cut_into_blocks(offsets)
        scratch = make_scratch(self.config, self.threads, len(ids), slots, longest)
        teams, counters = make_teams(self.threads, STEPS_PER_LAYER * self.config.layers + STEPS_AROUND)
        calls = [(self._model, offsets, blocks, rope, scratch, hidden, dim, team) for team in teams]
        if self._process != os.getpid():  # a fork: threads stay with the parent
            self._start_helpers()
        held = counters, self._weights  # by a helper too, since an interrupt may end the call that it is for
        helpers = [self._helpers.submit(lambda call, _held: forward(*call), call, held) for call in calls[1:]]
        forward(*calls[0])
        for helper in helpers:
            if not helper.cancel():  # it is running, finds nothing left to do, and ends
                helper.result()
        return hidden, scratch.product[: len(offsets) - 1, :dim]

    def _start_helpers(self) -> None:
        self._helpers, self._process = ThreadPoolExecutor(max(1, self.threads - 1), "embgemma"), os.getpid()


def _bind(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> tuple[Model, list[Tensor]]:
    """The model, and the arrays that its matrices have the addresses of. Weights are not copied."""
    specs, layers = list(matrices(config)), range(config.layers)
    table, held = np.zeros(len(specs), MATRIX), []
    for i, spec in enumerate(specs):
        parts = (tensors.get(f"{spec.name}.{part}", np.empty(0)) for part in ("weight", "codebook", "scale"))
        arrays = [np.ascontiguousarray(part) for part in parts]
        matrix_format = FORMATS[DTYPE_FORMATS[arrays[0].dtype]]
        table[i] = matrix_format, spec.out_features, spec.in_features, *(array.ctypes.data for array in arrays)
        held += arrays
    norms = np.array([[tensors[f"layers.{i}.{name}"] for name in NORMS] for i in layers])
    head_norms = np.array([[tensors[f"layers.{i}.{name}"] for name in ("q_norm", "k_norm")] for i in layers])
    full, eps = np.array([config.is_full(i) for i in layers], np.int8), np.float32(config.rms_norm_eps)
    final_norm, numbers = np.array(tensors["final_norm"]), (config.heads, config.kv_heads, config.window, eps)
    return Model(*numbers, table, norms, final_norm, head_norms, full), held


def _rope_table(config: EncoderConfig, positions: int) -> F32:
    """What RoPE (arXiv 2104.09864) turns by: (kinds of layer, positions, head_dim), cosines and then sines."""
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim  # (head_dim / 2,)
    thetas = np.array([config.rope_theta_sliding, config.rope_theta_full])
    angles = np.arange(positions)[:, None] * thetas[:, None, None] ** -exponents  # (kinds, positions, head_dim / 2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


def cut_into_blocks(offsets: I64) -> tuple[I64, int]:
    """The blocks of numba_ops.py for the texts that offsets (texts + 1,) divide, and how many slots their keys take."""
    blocks, slot = [], 0
    for row, tokens in zip(offsets.tolist(), np.diff(offsets).tolist(), strict=False):
        blocks += [(row, slot, tokens, start) for start in range(0, tokens, BLOCK_QUERIES)]
        slot += -(-tokens // KEY_GRAIN) * KEY_GRAIN
    return np.array(blocks), slot


def make_scratch(config: EncoderConfig, threads: int, tokens: int, slots: int, longest: int) -> Scratch:
    """Memory for texts of so many tokens, whose keys take so many slots."""
    widest_input = max(config.hidden, config.q_width, config.ffn)
    widest_output = max(config.hidden, config.qkv_width, 2 * config.ffn)
    rows = config.heads // config.kv_heads * BLOCK_QUERIES
    return Scratch(
        x=np.empty((tokens, widest_input + SPREAD), np.float32),
        codes=np.empty((tokens, widest_input), np.int8),
        scales=np.empty(tokens, np.float32),
        code_sums=np.empty(tokens, np.int32),
        levels=np.empty((threads, WIDTH * widest_input), np.int8),
        product=np.empty((tokens, widest_output + SPREAD), np.float32),
        keys=np.empty((config.kv_heads, slots // PANEL, config.head_dim, PANEL), np.float32),
        values=np.empty((config.kv_heads, config.head_dim // PANEL, slots, PANEL), np.float32),
        scores=np.empty((threads, rows, -(-longest // KEY_GRAIN) * KEY_GRAIN + SPREAD), np.float32),
    )
