"""Pieces and merges, read back from the tokenizer's table of a model file: see `tokenizer_table` and `double_array`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.errors import ModelFileError, reading
from ...kernels.tokenizer_table import (
    HEADER,
    ID_BITS,
    JOIN_BYTES,
    MOST_PROBES,
    PADDING,
    PAIR_BYTES,
    SLOT_BYTES,
    aligned,
)
from .double_array import LABEL_MASK, LEAF, NO_LABEL, PAYLOAD_SHIFT, VALUED
from .merges import Merges
from .pieces import MOST_PIECE_BYTES, SPACE_SYMBOL, Pieces

_UNIT_BYTES = 4


def read_table(table: npt.NDArray[np.uint8]) -> tuple[Pieces, Merges]:
    """The pieces that a table can make of texts, and what each is merged from; raises ModelFileError for a bad one."""
    with reading("the tokenizer's table", ModelFileError):
        pieces, merges = _read_table(table)
        ids = {*pieces.normal.values(), *pieces.special.values(), *pieces.runs, *pieces.byte_ids}
        if max(ids) >= pieces.count:
            raise ModelFileError("a piece has no row")
    return pieces, merges


def _read_table(table: npt.NDArray[np.uint8]) -> tuple[Pieces, Merges]:
    h = table[: HEADER.itemsize].copy().view(HEADER)[0]
    text, special = _spellings(table, h)
    normal = {text[i].replace(" ", SPACE_SYMBOL): i for i in sorted(text)}
    names = {i: name for name, i in normal.items()}
    merges = {
        names[i]: (names[left], names[right])
        for i, (left, right) in enumerate(_pairs(table, h), start=int(h["first_merged"]))
        if i in names
    }
    pieces = Pieces(
        count=int(h["vocab"]),
        normal=normal,
        special={special[i]: i for i in sorted(special)},
        cut=frozenset(),
        runs=h["run_ids"][2 : int(h["longest_run"]) + 1].tolist(),
        byte_ids=h["byte_ids"].tolist(),
    )
    return pieces, merges


def _pairs(table: npt.NDArray[np.uint8], h: Any) -> list[tuple[int, int]]:
    """The ids of the two parts of each merged piece; no ids where merging gives none."""
    slots = aligned(SLOT_BYTES * (int(h["slot_count"]) + MOST_PROBES) + PADDING)
    begin = HEADER.itemsize + JOIN_BYTES + _UNIT_BYTES * int(h["unit_count"]) + slots
    words = np.zeros((int(h["merged_count"]), 8), np.uint8)
    words[:, :PAIR_BYTES] = table[begin : begin + PAIR_BYTES * len(words)].reshape(-1, PAIR_BYTES)
    pairs = words.view("<u8").ravel().astype(np.int64)
    return [*zip((pairs & ((1 << ID_BITS) - 1)).tolist(), (pairs >> ID_BITS).tolist(), strict=True)]


def _spellings(table: npt.NDArray[np.uint8], h: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Spellings of the pieces in text, with spaces, and of the special pieces, by id, from the two tries."""
    begin = HEADER.itemsize + JOIN_BYTES
    units = table[begin : begin + _UNIT_BYTES * int(h["unit_count"])].view("<u4").astype(np.int64)
    labels, payloads = units & LABEL_MASK, units >> PAYLOAD_SHIFT
    nodes = np.flatnonzero(labels != NO_LABEL)
    inner = nodes[units[nodes] & LEAF == 0]
    inner = inner[np.argsort(labels[inner] == ord(" "), kind="stable")]  # a space and "▁" lead to one node: the space
    parents = np.zeros(len(units), np.int64)
    parents[payloads[inner]] = inner
    ends = nodes[units[nodes] & (LEAF | VALUED) != 0]
    pieces = np.where(units[ends] & LEAF != 0, payloads[ends], payloads[payloads[ends] % len(units)])
    found: tuple[dict[int, str], dict[int, str]] = ({}, {})
    letters: list[npt.NDArray[np.uint8]] = []
    at, alive = ends, np.ones(len(ends), bool)
    roots = np.full(len(ends), -1)
    while alive.any():
        if len(letters) == MOST_PIECE_BYTES:
            raise ModelFileError("a piece has no beginning")
        letters.append(np.where(alive, labels[at], 0).astype(np.uint8))  # no piece has a zero byte
        offsets = at ^ labels[at]
        for which, root in enumerate((int(h["text_root"]), int(h["special_root"]))):
            reached = alive & (offsets == root)
            roots[reached] = which
            alive &= ~reached
        at = np.where(alive, parents[offsets], at)
    joined, width = np.stack(letters[::-1], axis=1).tobytes(), len(letters)
    for i, (piece, root) in enumerate(zip(pieces.tolist(), roots.tolist(), strict=True)):
        found[root][piece] = joined[i * width : (i + 1) * width].lstrip(b"\0").decode()
    return found
