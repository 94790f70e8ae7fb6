"""Makes the table that the C tokenizer reads in place: tensor `tokenizer.table` of a model file.

kernels/tokenizer_table.h states its layout; `merges` says why it is all that the C tokenizer must know.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ...kernels.tokenizer_table import (
    HEADER,
    ID_BITS,
    INDEX_BITS,
    MAGIC,
    MOST_PROBES,
    MOST_RUN,
    PADDING,
    PAIR_BYTES,
    SLOT_BYTES,
    VERSION,
    aligned,
)
from .double_array import DoubleArray
from .merges import Merges, check_against_sentencepiece, check_late_pieces, find_merges
from .pieces import SPACE_SYMBOL, Pieces, read_pieces, unsupported

_SLOTS_PER_PAIR = 1.55  # of Gemma's 236,245 pairs; an absent one then takes 3.6 probes, most in one cache line
_TAG_BITS = 8 * SLOT_BYTES - INDEX_BITS  # of the pair's hash, so that most absent pairs show in their slot alone
_EMPTY_SLOT = (1 << 8 * SLOT_BYTES) - 1
_NO_PARTS = (1 << ID_BITS) - 1  # of a piece that merging does not give

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_Words: TypeAlias = npt.NDArray[np.uint32]


def build_tokenizer_table(model_bytes: bytes, pieces: Pieces | None = None) -> _Bytes:
    """The table of a valid SentencePiece model: (bytes,), a multiple of 64.

    pieces: those of the model, if they were read, which takes seconds.

    Raises CheckpointError if the model is not of Gemma's kind.
    """
    pieces = pieces or read_pieces(model_bytes)
    merges = {name: pair for name, pair in find_merges(pieces.normal).items() if name not in pieces.cut}
    check_against_sentencepiece(model_bytes, pieces, merges)
    check_late_pieces(pieces.normal, merges)
    return make_table(pieces, merges)


def make_table(pieces: Pieces, merges: Merges) -> _Bytes:
    """The table of pieces and merges that were checked, or of a closed part of them: (bytes,)."""
    units, text_root, special_root = _tries(pieces, merges)
    first_merged, parts = _parts(pieces.normal, merges)
    slot_count, slots = _pair_slots(parts)
    fields = [pieces.count, len(units), text_root, special_root]
    fields += [first_merged, len(parts), slot_count, len(pieces.runs) + 1]
    pairs = parts[:, 0].astype(np.uint64) | parts[:, 1].astype(np.uint64) << np.uint64(ID_BITS)
    packed = [_low_bytes(slots, SLOT_BYTES), _low_bytes(pairs, PAIR_BYTES)]
    return _assemble(fields, pieces, [_joins(pieces, merges), units, *packed])


def _tries(pieces: Pieces, merges: Merges) -> tuple[_Words, int, int]:
    """One array of two tries, and the offsets of their roots: of pieces in text, and of special pieces.

    Text is matched as it comes: in the first trie, a space and "▁" lead to the same nodes.
    """
    trie = DoubleArray()
    text_root, special_root = trie.new_node(), trie.new_node()
    for name, i in pieces.normal.items():
        if name in merges or len(name) == 1:
            trie.insert(text_root, name.replace(SPACE_SYMBOL, " ").encode(), i)
    trie.alias(ord(" "), SPACE_SYMBOL.encode())
    for name, i in pieces.special.items():
        trie.insert(special_root, name.encode(), i)
    units, (text_offset, special_offset) = trie.pack(text_root, special_root)
    return units, text_offset, special_offset


def _parts(normal: dict[str, int], merges: Merges) -> tuple[int, _Words]:
    """(pieces, 2): the ids of the pair that each piece of several characters is merged from, and the first one's id."""
    ids = [i for name, i in normal.items() if len(name) > 1]
    if not ids or any(ids[0] < i < ids[-1] for name, i in normal.items() if len(name) == 1):
        raise unsupported(f"a single character is among the ids of its {len(ids)} pieces of several")
    count = ids[-1] - ids[0] + 1  # special pieces may be among them
    if count >= 1 << INDEX_BITS or max(normal.values()) >= _NO_PARTS:
        raise unsupported(f"it has {count} pieces of several characters; the table can hold {1 << INDEX_BITS}")
    parts = np.full((count, 2), _NO_PARTS, np.uint32)
    for name, pair in merges.items():
        parts[normal[name] - ids[0]] = [normal[part] for part in pair]
    return ids[0], parts


def _pair_slots(parts: _Words) -> tuple[int, _Words]:
    """A hash table from pair to index of the merged piece: how many slots a hash may fall on, and all slots.

    A pair is stored in the slot of its hash, or in the first free one of the next MOST_PROBES - 1. Pairs are placed in
    the order of their hashes, so no pair is far from its slot, and the last slots need not wrap around.
    """
    indices = np.flatnonzero(parts[:, 0] != _NO_PARTS)
    hashes = _pair_hashes(parts[indices, 0], parts[indices, 1])
    slots_per_pair = _SLOTS_PER_PAIR
    while True:
        count = -(-int(len(indices) * slots_per_pair) // 16) * 16
        homes = ((hashes >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
        order = np.argsort(homes, kind="stable")
        rank = np.arange(len(order))
        places = np.maximum.accumulate(homes[order].astype(np.int64) - rank) + rank
        if not len(order) or np.max(places - homes[order].astype(np.int64)) < MOST_PROBES:
            break
        slots_per_pair *= 1.25
    slots = np.full(count + MOST_PROBES, _EMPTY_SLOT, np.uint32)
    tags = (hashes & np.uint64(0xFFFF_FFFF)) >> np.uint64(32 - _TAG_BITS)
    slots[places] = (tags << np.uint64(INDEX_BITS) | indices.astype(np.uint64))[order]
    return count, slots


def _low_bytes(words: npt.NDArray[Any], size: int) -> _Bytes:
    """The lowest bytes of each word, end to end, and padding after them."""
    rows = words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :size]
    return np.concatenate([rows.ravel(), np.zeros(PADDING, np.uint8)])


def _pair_hashes(left: _Words, right: _Words) -> npt.NDArray[np.uint64]:
    """The 64-bit hash of pairs, as eg_find_merge() of tokenizer_table.h computes it."""
    pairs: npt.NDArray[np.uint64] = left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)
    pairs *= np.uint64(0x9E3779B97F4A7C15)
    pairs ^= pairs >> np.uint64(32)
    pairs *= np.uint64(0xD6E8FEB86659FD93)
    return pairs


def _joins(pieces: Pieces, merges: Merges) -> _Bytes:
    """(256, 32) bit masks: which last byte and first byte of neighbouring characters occur in a piece.

    Where no bit is set, the two bytes belong to different words, and to no special piece.
    """
    joins = np.zeros((256, 256), np.uint8)
    for before, after in {pair for name in (*merges, *pieces.special) for pair in pairwise(name)}:
        for end in (before, " ") if before == SPACE_SYMBOL else (before,):  # a space in the text is a "▁" in a piece
            for beginning in (after, " ") if after == SPACE_SYMBOL else (after,):
                joins[end.encode()[-1], beginning.encode()[0]] = 1
    return np.packbits(joins, axis=1, bitorder="little")


def _assemble(fields: list[int], pieces: Pieces, arrays: list[_Bytes | _Words]) -> _Bytes:
    """Header, then the arrays, each aligned."""
    header_fields = np.zeros(12, "<u4")
    header_fields[: 1 + len(fields)] = [HEADER.itemsize + sum(aligned(array.nbytes) for array in arrays), *fields]
    runs = np.zeros(MOST_RUN + 1, "<u4")
    runs[2 : 2 + len(pieces.runs)] = pieces.runs
    byte_ids = np.array(pieces.byte_ids, "<u4")
    checked = header_fields.tobytes() + runs.tobytes() + byte_ids.tobytes()
    start = MAGIC + VERSION.to_bytes(4, "little") + zlib.crc32(checked).to_bytes(4, "little")
    data = (array.tobytes().ljust(aligned(array.nbytes), b"\0") for array in arrays)
    return np.frombuffer(b"".join([start, checked, *data]), np.uint8)
