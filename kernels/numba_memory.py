"""The arrays behind the addresses that compiled code of the Numba backend gets: made here, and held by the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from .layout import DTYPE_FORMATS, PANEL, matrices
from .numba_products import PAIR
from .numba_state import BLOCK_QUERIES, FLOAT32, FULL, INT4, INT8, SLIDING, Batch, Model, Scratch
from .numba_views import rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import EncoderConfig
    from .layout import Tensor
    from .numba_views import F32, I64

FORMAT_NUMBERS = {"float32": FLOAT32, "int8": INT8, "int4": INT4}
NORM_NAMES = ("input_norm", "post_attention_norm", "pre_ffn_norm", "post_ffn_norm")  # in the order of a layer

Value = TypeVar("Value")


@dataclass(frozen=True)
class Held(Generic[Value]):
    """A tuple of addresses, and the arrays that they point into: valid for as long as this lives."""

    value: Value
    arrays: tuple[npt.NDArray[Any], ...]


def hold_model(config: EncoderConfig, tensors: Mapping[str, Tensor]) -> Held[Model]:
    """Shapes and weights; the weights themselves are not copied."""
    names = [spec.name for spec in matrices(config)]
    weights = [np.ascontiguousarray(tensors[f"{name}.weight"]) for name in names]
    codebooks = [np.ascontiguousarray(tensors.get(f"{name}.codebook", np.empty(0))) for name in names]
    scales = [np.ascontiguousarray(tensors.get(f"{name}.scale", np.empty(0))) for name in names]
    layers = range(config.layers)
    norms = np.stack([tensors[f"layers.{i}.{name}"] for i in layers for name in NORM_NAMES] + [tensors["final_norm"]])
    head_norms = np.stack([tensors[f"layers.{i}.{name}"] for i in layers for name in ("q_norm", "k_norm")])
    kinds = np.array([FULL if config.is_full(i) else SLIDING for i in layers], np.int64)
    formats = np.array([FORMAT_NUMBERS[DTYPE_FORMATS[weight.dtype]] for weight in weights], np.int64)
    weight_addresses, codebook_addresses, scale_addresses = (
        np.array([array.ctypes.data for array in arrays], np.int64) for arrays in (weights, codebooks, scales)
    )
    ones = np.ones((1, _input_width(config)), np.float32)
    model = Model(
        layers=config.layers,
        hidden=config.hidden,
        ffn=config.ffn,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        window=config.window,
        eps=np.float32(config.rms_norm_eps),
        kinds=kinds.ctypes.data,
        formats=formats.ctypes.data,
        weights=weight_addresses.ctypes.data,
        codebooks=codebook_addresses.ctypes.data,
        scales=scale_addresses.ctypes.data,
        norms=rows_of(norms),
        head_norms=rows_of(head_norms),
        ones=rows_of(ones),
    )
    tables = (kinds, formats, weight_addresses, codebook_addresses, scale_addresses, norms, head_norms, ones)
    return Held(model, (*weights, *codebooks, *scales, *tables))


def rope_table(config: EncoderConfig, positions: int) -> F32:
    """What RoPE (arXiv 2104.09864) turns by: (positions, kinds of layer, head_dim), cosines and then sines."""
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim  # (head_dim / 2,)
    thetas = np.array([config.rope_theta_sliding, config.rope_theta_full])
    angles = np.arange(positions)[:, None, None] * thetas[:, None] ** -exponents  # (positions, kinds, head_dim / 2)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)


def hold_batch(offsets: I64, rope: F32) -> Held[Batch]:
    """The batch of the texts that offsets (texts + 1,) divide; rope is a rope_table long enough for each."""
    lengths = np.diff(offsets)  # (texts,)
    positions = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    key_room = key_slots(lengths)
    starts = np.cumsum(key_room) - key_room
    slots = positions + np.repeat(starts, lengths)
    blocks = -(-lengths // BLOCK_QUERIES)
    block_texts = np.repeat(np.arange(len(lengths)), blocks)
    block_starts = BLOCK_QUERIES * (np.arange(len(block_texts)) - np.repeat(np.cumsum(blocks) - blocks, blocks))
    offsets = np.ascontiguousarray(offsets)
    by_row = rope.reshape(-1, rope.shape[-1])  # (2 * positions, head_dim)
    batch = Batch(
        tokens=len(positions),
        texts=len(lengths),
        offsets=offsets.ctypes.data,
        positions=positions.ctypes.data,
        key_slots=slots.ctypes.data,
        blocks=len(block_texts),
        block_texts=block_texts.ctypes.data,
        block_starts=block_starts.ctypes.data,
        rope=rows_of(by_row),
    )
    return Held(batch, (offsets, positions, slots, block_texts, block_starts, by_row))


def key_slots(lengths: I64) -> I64:
    """Room that the keys of texts of so many tokens take: whole pairs of panels, since a product has no less."""
    return -(-lengths // PAIR) * PAIR


@dataclass(frozen=True)
class Room:
    """What the intermediate values of a batch need: tokens, places for keys, and places for the longest text's keys."""

    tokens: int
    key_slots: int
    longest: int

    def holds(self, other: Room) -> bool:
        """Whether what fits other fits this."""
        return self.tokens >= other.tokens and self.key_slots >= other.key_slots and self.longest >= other.longest


def hold_scratch(config: EncoderConfig, threads: int, room: Room) -> Held[Scratch]:
    """Memory for intermediate values."""
    tokens, width = room.tokens, _input_width(config)
    sharing = config.heads // config.kv_heads
    codes = np.zeros((tokens, width), np.int8)
    scales, sums = np.zeros(tokens, np.float32), np.zeros(tokens, np.int32)
    inputs = np.zeros((tokens, _spread(width)), np.float32)
    levels = np.zeros((threads, PAIR * width), np.int8)
    product = np.zeros((tokens, _spread(max(config.hidden, config.qkv_width, 2 * config.ffn))), np.float32)
    key_panels = room.key_slots // PANEL
    keys = np.zeros((config.kv_heads * key_panels, config.head_dim * PANEL), np.float32)
    values = np.zeros((config.kv_width // PANEL, tokens * PANEL), np.float32)
    scores = np.zeros((threads * sharing * BLOCK_QUERIES, _spread(room.longest)), np.float32)
    scratch = Scratch(
        codes=rows_of(codes),
        scales=scales.ctypes.data,
        sums=sums.ctypes.data,
        inputs=rows_of(inputs),
        levels=rows_of(levels),
        product=rows_of(product),
        keys=rows_of(keys),
        key_panels=key_panels,
        values=rows_of(values),
        scores=rows_of(scores),
    )
    return Held(scratch, (codes, scales, sums, inputs, levels, product, keys, values, scores))


def _input_width(config: EncoderConfig) -> int:
    """Columns of the widest input of a matrix."""
    return max(config.hidden, config.q_width, config.ffn)


def _spread(width: int) -> int:
    """Columns of a float32 matrix of `width`, a multiple of 16: one more or 16 more, an odd number of cache lines.

    With an even number, rows of a tile fall into the same few sets of the first-level cache: attention then took 1.6
    times as long.
    """
    return (width // PANEL | 1) * PANEL
